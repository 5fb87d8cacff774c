"""Grade a finished run again, without sampling: `python -m pacore_lab regrade OUT [grader=OPTION] [grader.key=value]`.

The texts in OUT/results.jsonl stay as they are. The new grades go to OUT/grades/NAME.jsonl; NAME is the grader and a
digest of its settings and version. Beside them NAME.json describes the grader, and NAME.disagreements.jsonl lists every
episode and every first-round sample whose score changed. `python -m pacore_lab compare --grades NAME` reads them. A
strategy's decisions by its own grader (a vote's winner) stay as they were; the free baselines vote again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pacore_lab import analysis
from pacore_lab.config.command import one_line_errors
from pacore_lab.config.stored import regrading
from pacore_lab.errors import ConfigError, DataError
from pacore_lab.interfaces import Grader, ProblemSet
from pacore_lab.results.disk import read_lines, write_json
from pacore_lab.results.folder import read_run
from pacore_lab.results.grades import with_grades
from pacore_lab.results.line import grade_episode, trajectories_of, truth_of
from pacore_lab.sampling.names import digest
from pacore_lab.showing import terminal
from pacore_lab.showing.text import safe
from pacore_lab.types import Problem

IN_FLIGHT = 64
"""Episodes graded at once."""
SHOWN = 20
"""Disagreements printed; the file has all of them."""


async def regrade(out: Path, grader: Grader, problems: ProblemSet, settings: Mapping[str, Any]) -> Path:
    """Grade every finished episode of `out` and return the file of new grades. Raises ConfigError and DataError."""
    run, versions = read_run(out, "strategy", "problems", "grader")
    total = sum(1 for _ in _finished(out))
    if not total:
        raise ConfigError(f"{out} holds no finished episode to grade")
    asked = {problem.id: problem for problem in problems.load()}
    draft: Path | None = None
    try:
        await grader.start()
        name = f"{type(grader).__name__}-{digest([settings, grader.version])[:8]}"
        (out / "grades").mkdir(exist_ok=True)
        file = out / "grades" / f"{name}.jsonl"
        draft = file.with_suffix(".tmp")
        disagreements: list[dict[str, Any]] = []
        with draft.open("w", encoding="utf-8") as written, terminal.Progress(total) as progress:
            done = 0
            async for line, graded in _graded(out, asked, grader):
                written.write(json.dumps(graded) + "\n")
                disagreements += _differences(line, graded)
                done += 1
                progress.update(done=done)
        os.replace(draft, file)
    except BaseException:
        if draft is not None:
            draft.unlink(missing_ok=True)
        raise
    finally:
        await grader.close()
    write_json(file.with_suffix(".json"), {"version": grader.version, "settings": settings})
    listed = file.with_suffix(".disagreements.jsonl")
    listed.write_text("".join(json.dumps(each) + "\n" for each in disagreements), encoding="utf-8")
    _print(out, versions["strategy"], file, disagreements)
    if "grader" in run["strategy"]:
        print("the strategy's decisions by the run's own grader stay as they were; run it again to let it decide anew")
    return file


def _finished(out: Path) -> Iterator[dict[str, Any]]:
    return (line for line in read_lines(out / "results.jsonl") if line["error"] is None)


async def _graded(
    out: Path, asked: Mapping[str, Problem], grader: Grader
) -> AsyncIterator[tuple[Mapping[str, Any], dict[str, Any]]]:
    """Each line with its new grades, in file order; `IN_FLIGHT` are graded at once."""
    waiting: deque[tuple[Mapping[str, Any], asyncio.Task[dict[str, Any]]]] = deque()
    try:
        for line in _finished(out):
            problem = asked.get(line["request_id"])
            if problem is None or digest(problem.messages) != digest(line["problem"]):
                raise DataError(f"{out}: the run's problems no longer hold {line['request_id']!r} as the run asked it")
            waiting.append((line, asyncio.create_task(_grade(problem, line, grader))))
            if len(waiting) >= IN_FLIGHT:
                first, task = waiting.popleft()
                yield first, await task
        while waiting:
            first, task = waiting.popleft()
            yield first, await task
    finally:
        for _, task in waiting:
            task.cancel()


async def _grade(problem: Problem, line: Mapping[str, Any], grader: Grader) -> dict[str, Any]:
    trajectories = trajectories_of(line)
    first = [trajectories[sample["id"]] for sample in line["samples"] if sample["id"] in trajectories]
    graded = await grade_episode(
        problem,
        answers=[trajectories[name] for name in line["answers"]],
        reason=line["reason"],
        failed=False,
        first=first if len(first) == len(line["samples"]) else (),
        grader=grader,
    )
    key = {"request_id": line["request_id"], "repeat": line["repeat"], "ground_truth": truth_of(problem)}
    return {**key, **graded}


def _differences(line: Mapping[str, Any], graded: Mapping[str, Any]) -> list[dict[str, Any]]:
    key = {"request_id": line["request_id"], "repeat": line["repeat"]}
    found = []
    if line["grade"]["score"] != graded["grade"]["score"]:
        shown = {"answer": graded["final_answer"], "ground_truth": (graded["ground_truth"] or {}).get("answer")}
        found.append({**key, "sample": None, "old": line["grade"], "new": graded["grade"], **shown})
    old = {sample["id"]: sample for sample in line["samples"]}
    for sample in graded["samples"]:
        if sample["id"] in old and old[sample["id"]]["score"] != sample["score"]:
            found.append({**key, "sample": sample["id"], "old": old[sample["id"]], "new": sample})
    return found


def _print(out: Path, strategy: str, file: Path, disagreements: Sequence[Mapping[str, Any]]) -> None:
    console = Console()
    before = analysis.tally(_finished(out))
    console.print(Text("as graded in the run:", style="bold"))
    terminal.print_table(analysis.summarise(_finished(out), strategy), before, console=console)
    console.print(Text("\ngraded again:", style="bold"))
    after = analysis.tally(with_grades(_finished(out), file))
    terminal.print_table(analysis.summarise(with_grades(_finished(out), file), strategy), after, console=console)
    finals = [each for each in disagreements if each["sample"] is None]
    for each in finals[:SHOWN]:
        told = f"{each['old']['score']} -> {each['new']['score']}"
        answer = f"answer {str(each['answer'])[:60]!r}, truth {str(each['ground_truth'])[:60]!r}"
        text = f"{each['request_id']} repeat {each['repeat']}: {told} ({answer}) {each['new']['reason']}"
        console.print(Text(safe(text)), soft_wrap=True)
    changed = f"{len(finals)} of {before.episodes} episodes and {len(disagreements) - len(finals)} samples"
    console.print(Text(f"{changed} changed their score; all are in {file.with_suffix('.disagreements.jsonl')}"))
    console.print(Text(f"grades   {file}"), soft_wrap=True)


@one_line_errors
def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return
    out = Path(sys.argv[1])
    settings, _ = read_run(out, "problems", "grader")
    grader, chosen, problems = regrading(settings, sys.argv[2:])
    asyncio.run(regrade(out, grader, problems, chosen))
