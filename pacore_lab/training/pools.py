"""Message pools from finished runs: `python -m pacore_lab pools OUT [OUT ...] --messages 24 --to FILE`.

A problem's pool is the set of its first-round trajectories, over all its repeats in all the runs. Each trajectory is
compacted to its message (the conclusion after the last </think>) and keeps its grade from the run. Failed and empty
trajectories give no message. The first N messages are kept, in an order drawn from the trajectories' ids; a problem
with fewer is dropped.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from pacore_lab.config.command import one_line_errors
from pacore_lab.config.stored import regrading
from pacore_lab.errors import ConfigError, DataError
from pacore_lab.interfaces import Compaction
from pacore_lab.problems.rows import encodable
from pacore_lab.results.folder import read_run
from pacore_lab.results.grades import lines_of
from pacore_lab.results.line import trajectories_of, truth_of
from pacore_lab.sampling.names import digest
from pacore_lab.training.records import Record, reads_back
from pacore_lab.training.sieve import Sieved, add_arguments, finish
from pacore_lab.types import Message, Problem, Prompt, Trajectory

Problems: TypeAlias = Callable[[Path], Mapping[str, Problem]]
"""The problems of a run's folder, by id."""
MESSAGES = 24
"""Messages per problem in the paper (arXiv 2601.05593, section 2.2)."""


def conclusions(trajectories: Sequence[Trajectory]) -> tuple[Message, ...]:
    """The published compaction."""
    return tuple(Message(text=each.conclusion, sources=(each.id,)) for each in trajectories if each.content)


@dataclass(kw_only=True)
class _Drawn:
    """A problem as the first run asked it, and its draws: messages and score by trajectory."""

    id: str
    conversation: Prompt
    ground_truth: Mapping[str, Any] | None
    out: Path
    by_trajectory: dict[str, tuple[tuple[str, ...], float | None]] = field(default_factory=dict)


def pools(
    outs: Sequence[Path], *, messages: int = MESSAGES, compact: Compaction = conclusions, grades: str | None = None
) -> Sieved:
    """A record with `messages` messages for each problem of the runs that has that many.

    compact: called with one trajectory at a time. grades: name of a regrading to use instead of the runs' own grades.
    Raises ConfigError for folders without a run and for runs graded differently, DataError for problems that changed.
    """
    if messages < 1:
        raise ConfigError(f"--messages is {messages}; give 1 or more")
    _require_one_grader(outs, grades)
    records: list[Record] = []
    dropped: Counter[str] = Counter()
    names: set[str] = set()
    problems = cache(_problems)  # once per run, and only if its lines lack a ground truth
    for key, drawn in _gather(outs, compact, grades).items():
        name = drawn.id if drawn.id not in names else f"{drawn.id}-{key[:8]}"  # from another set with the same id
        made = _record(drawn, messages, name, problems)
        if isinstance(made, str):
            dropped[made] += 1
        else:
            names.add(made.id)
            records.append(made)
    return Sieved(records=records, dropped=dropped)


def _require_one_grader(outs: Sequence[Path], grades: str | None) -> None:
    graders = {str(out): read_run(out)[1]["grader"] for out in outs}
    if grades is None and len(set(graders.values())) > 1:
        told = "; ".join(f"{out} by {grader}" for out, grader in graders.items())
        raise ConfigError(
            f"the runs were graded differently ({told}); regrade them alike and name the regrading with --grades"
        )


def _gather(outs: Sequence[Path], compact: Compaction, grades: str | None) -> dict[str, _Drawn]:
    """What was drawn for each problem, by digest of its conversation."""
    found: dict[str, _Drawn] = {}
    for out in outs:
        for line in lines_of(out, grades):
            key = digest(line["problem"])
            truth = line["ground_truth"]
            made = _Drawn(id=line["request_id"], conversation=tuple(line["problem"]), ground_truth=truth, out=out)
            drawn = found.setdefault(key, made)
            if drawn.ground_truth != truth:
                raise DataError(f"{out}: {line['request_id']!r} has another ground truth in {drawn.out}; leave one out")
            scores = {sample["id"]: sample["score"] for sample in line["samples"]}
            for trajectory in _first_round(line):
                if drawn.by_trajectory.get(trajectory.id, ((), None))[1] is None:  # a costly grader grades one per run
                    texts = tuple(each.text for each in compact((trajectory,)) if encodable(each.text))
                    drawn.by_trajectory[trajectory.id] = (texts, scores.get(trajectory.id))
    return found


def _first_round(line: Mapping[str, Any]) -> list[Trajectory]:
    first = {fact["id"] for facts in line["trajectories"] for fact in facts if fact["round"] == 1}
    return [trajectory for key, trajectory in trajectories_of(line).items() if key in first]


def _record(drawn: _Drawn, messages: int, name: str, problems: Problems) -> Record | str:
    """The record, or the reason why there is none."""
    # by digest of the id: independent of arrival order, and of anything that correlates with being right
    order = sorted(drawn.by_trajectory, key=lambda key: digest(["message", key]))
    made = [drawn.by_trajectory[key] for key in order]
    pool = [(text, score) for texts, score in made for text in texts]
    if len(pool) < messages:
        return f"fewer than {messages} messages"
    truth = _truth(drawn, problems)
    if truth is None:
        return "no ground truth with an answer or tests"
    texts, scores = zip(*pool[:messages], strict=True)
    record = Record(id=name, conversation=drawn.conversation, responses=texts, scores=scores, **truth)
    return record if reads_back(record) else "its conversation or ground truth does not fit the format"


def _truth(drawn: _Drawn, problems: Problems) -> dict[str, Any] | None:
    """Answer or reference. A line has only a digest of the tests, so they are loaded from the run's problem set."""
    if drawn.ground_truth is None:
        return None
    if drawn.ground_truth["answer"] is not None:
        return {"answer": drawn.ground_truth["answer"]}
    problem = problems(drawn.out).get(drawn.id)
    if problem is None or truth_of(problem) != drawn.ground_truth:
        raise DataError(f"{drawn.out}: the run's problems no longer hold {drawn.id!r} as it was asked")
    if "tests" not in problem.reference:
        return None
    tests = [{key: test[key] for key in ("testtype", "input", "output")} for test in problem.reference["tests"]]
    return {"reference": {"tests": tests, "fn_name": problem.reference.get("fn_name")}}


def _problems(out: Path) -> Mapping[str, Problem]:
    settings, _ = read_run(out, "problems", "grader")
    _, _, problems = regrading(settings, [])
    return {problem.id: problem for problem in problems.load()}


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pacore_lab pools", description=__doc__)
    parser.add_argument("out", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--messages", type=int, default=MESSAGES, metavar="N", help="messages per problem; %(default)s")
    parser.add_argument("--grades", help="name of a regrading (see regrade) to use instead of the runs' own")
    add_arguments(parser)
    given = parser.parse_args()
    finish(pools(given.out, messages=given.messages, grades=given.grades), given)


if __name__ == "__main__":
    main()
