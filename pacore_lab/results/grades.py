"""The lines of a finished run, with its own grades or those of a regrading (`python -m pacore_lab regrade`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pacore_lab.errors import ConfigError
from pacore_lab.results.disk import read_lines


def with_grades(lines: Iterable[dict[str, Any]], grades: Path) -> Iterator[dict[str, Any]]:
    """Lines of results.jsonl with the grades from a file that `regrade` wrote, without episodes that it lacks."""
    graded = {(line["request_id"], line["repeat"]): line for line in read_lines(grades)}
    for line in lines:
        if again := graded.get((line["request_id"], line["repeat"])):
            yield {**line, **again}


def lines_of(out: Path, grades: str | None = None) -> Iterator[dict[str, Any]]:
    """A run's lines with its own grades, or with those of the regrading named `grades`. Raises ConfigError."""
    lines = read_lines(out / "results.jsonl")
    if grades is None:
        return lines
    file = out / "grades" / f"{grades}.jsonl"
    if grades.endswith(".disagreements") or not file.exists():
        there = sorted(path.stem for path in (out / "grades").glob("*.json"))
        raise ConfigError(f"{out} has no grades {grades!r}; it has: {', '.join(there) or 'none, see regrade'}")
    return with_grades(lines, file)
