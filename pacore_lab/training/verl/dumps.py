"""The paper's curves from verl's dumps: writes a log for `pacore_lab.training.curves`, a JSON object per step.

    python -m pacore_lab.training.verl.dumps OUT/rollouts --metrics OUT/metrics --to OUT/log.jsonl

rollouts: trainer.rollout_data_dir, with a file {step}.jsonl of all responses. metrics: the folder of verl's file
logger, which has the lengths in tokens, with a file per start of the training; later files take precedence.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pacore_lab.config.command import one_line_errors
from pacore_lab.errors import ConfigError, DataError
from pacore_lab.showing.text import safe
from pacore_lab.training.environment import Counts, Instance
from pacore_lab.training.verl.reward import UNGRADED
from pacore_lab.types import Completion, Grade, Problem, Trajectory


@dataclass(frozen=True, kw_only=True)
class Response:
    """A line of a dump."""

    domain: str
    counts: Counts
    characters: int


def read_response(line: str, where: str) -> Response | None:
    """None for a response that verl added to fill a batch. Raises DataError for one our data set did not ask for."""
    try:
        found = json.loads(line)
        if str(found["uid"]).startswith("pad"):
            return None
        told, text, score = json.loads(found["gts"]), found["output"], float(found["score"])
        instance = Instance(
            record=told["record"],
            problem=Problem(id=told["record"], messages=()),
            prompt=(),
            messages=(),
            scores=tuple(told["scores"]),
        )
        domain = str(told["domain"])
        trajectory = Trajectory(id="", index=0, completion=Completion(content=text))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where}: not a response to the synthesis environment ({type(error).__name__}: {error}); name the folder "
            "that trainer.rollout_data_dir named"
        ) from None
    grade = Grade(score=None if score == UNGRADED else score)
    return Response(domain=domain, counts=Counts.of(instance, trajectory, grade), characters=len(text))


def summary(step: int, responses: Iterable[Response], length: float | None) -> dict[str, Any]:
    """A line of the log. reward: mean over graded responses, None if there are none. length: mean tokens."""
    by_domain: dict[str, list[Response]] = {}
    for response in responses:
        by_domain.setdefault(response.domain, []).append(response)
    every = [response for group in by_domain.values() for response in group]
    domains = {domain: _figures(group) for domain, group in sorted(by_domain.items())}
    return {"step": step, **_figures(every), "length": length, "domains": domains}


def _figures(responses: list[Response]) -> dict[str, Any]:
    counts = sum((response.counts for response in responses), Counts())
    return {
        "reward": counts.reward / counts.graded if counts.graded else None,
        "characters": sum(response.characters for response in responses) / len(responses) if responses else None,
        "counts": asdict(counts),
    }


def lengths(folder: Path) -> dict[int, float]:
    """Mean response length in tokens by step; the last file with a step counts. Files are in order of name (a time)."""
    found: dict[int, float] = {}
    for file in _files(folder, "--metrics"):
        for where, text in _lines(file):
            try:
                line = json.loads(text)
                step, data = int(line["step"]), line["data"]
                if "response_length/mean" in data:
                    found[step] = float(data["response_length/mean"])
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{where}: not a line of verl's file logger; leave this file out") from None
    return found


def log(rollouts: Path, tokens: Mapping[int, float]) -> Iterator[dict[str, Any]]:
    """The lines of the log, steps ascending."""
    files = _files(rollouts, "rollouts")
    if strange := [file for file in files if not file.stem.isdigit()]:
        raise DataError(f"{strange[0]}: its name is not a step; leave this file out")
    for file in sorted(files, key=lambda file: int(file.stem)):
        step = int(file.stem)
        found = (read_response(text, where) for where, text in _lines(file))
        yield summary(step, (each for each in found if each is not None), tokens.get(step))


def _files(folder: Path, name: str) -> list[Path]:
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise ConfigError(f"{name}: {folder} holds no .jsonl file; name the folder that the trainer wrote")
    return files


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """The complete lines of a file, each with its place; a last line without a newline is still being written."""
    try:
        with file.open(encoding="utf-8", newline="\n") as stream:
            for number, text in enumerate(stream, start=1):
                if text.endswith("\n"):
                    yield f"{file}:{number}", text
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from None


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pacore_lab.training.verl.dumps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rollouts", type=Path, help="folder of trainer.rollout_data_dir")
    parser.add_argument("--metrics", type=Path, required=True, metavar="FOLDER", help="folder of verl's file logger")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="where the log goes: .jsonl")
    given = parser.parse_args()
    tokens = lengths(given.metrics)
    draft = given.to.with_name(f".{given.to.name}.{os.getpid()}.tmp")
    total, steps = Counts(), 0
    try:
        with draft.open("w", encoding="utf-8") as file:
            for line in log(given.rollouts, tokens):
                file.write(json.dumps(line) + "\n")
                total, steps = total + Counts(**line["counts"]), steps + 1
        draft.replace(given.to)
    except OSError as error:
        raise ConfigError(f"{given.to} cannot be written ({error.strerror}); name another file") from None
    finally:
        draft.unlink(missing_ok=True)
    ungraded = total.responses - total.graded
    said = f"{steps} steps, {total.responses:,} responses, {ungraded:,} of them ungraded and in no rate  {given.to}"
    Console().print(Text(safe(said)), soft_wrap=True)


if __name__ == "__main__":
    main()
