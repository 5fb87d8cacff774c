"""The filters of the two training stages (arXiv 2601.05593, section 2.2).

    python -m pacore_lab filters stage1 FILE --to FILE [--math 0.375] [--code 0.625]
    python -m pacore_lab filters stage2 FILE --run OUT --to FILE

Stage 1 keeps problems whose mean message accuracy is above 0 and below their domain's threshold. Stage 2 keeps problems
whose synthesis accuracy under a checkpoint is strictly between 0 and 1; OUT is a run of the checkpoint on them.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pacore_lab.config.command import one_line_errors
from pacore_lab.errors import ConfigError
from pacore_lab.results.disk import read_lines
from pacore_lab.results.folder import read_run
from pacore_lab.training.records import Record, read_records
from pacore_lab.training.sieve import Sieved, add_arguments, finish
from pacore_lab.training.split import same_problem

BELOW: Mapping[str, float] = {"math": 9 / 24, "code": 15 / 24}
"""The published stage-1 thresholds, by domain."""


def stage1(records: Iterable[Record], below: Mapping[str, float] = BELOW) -> Sieved:
    """Keep 0 < mean message accuracy < below[domain]. Drop a record with an ungraded message: it need not be wrong."""

    def why_not(record: Record) -> str | None:
        if record.accuracy is None:
            return "not all messages graded" if record.responses else "no messages"
        if record.accuracy == 0:
            return "no message right"
        most = below[record.domain]
        return None if record.accuracy < most else f"{record.domain}: mean message accuracy {most:g} or more"

    return _sieve(records, why_not)


def stage2(records: Iterable[Record], scores: Mapping[str, Sequence[float | None]]) -> Sieved:
    """Keep 0 < synthesis accuracy < 1, the mean of `scores`: final-answer scores by record id, None for ungraded.

    A record with an ungraded answer, or without answers, is dropped.
    """

    def why_not(record: Record) -> str | None:
        found = scores.get(record.id, ())
        graded = [score for score in found if score is not None]
        if not found:
            return "not answered"
        if len(graded) < len(found):
            return "not all answers graded"
        accuracy = statistics.fmean(graded)
        return "synthesis accuracy 0" if accuracy == 0 else "synthesis accuracy 1" if accuracy == 1 else None

    return _sieve(records, why_not)


def synthesis_scores(records: Iterable[Record], lines: Iterable[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Scores of a run's final answers by record id, for `stage2`. lines: of its results.jsonl.

    Problems are matched by their conversations, because a run on the records' file has its own ids. A failed episode is
    ungraded.
    """
    found: dict[str, list[float | None]] = {}
    for line in lines:
        found.setdefault(same_problem(tuple(line["problem"])), []).append(line["grade"]["score"])
    return {record.id: found.get(same_problem(record.conversation), []) for record in records}


def _sieve(records: Iterable[Record], why_not: Callable[[Record], str | None]) -> Sieved:
    kept: list[Record] = []
    dropped: Counter[str] = Counter()
    for record in records:
        if (why := why_not(record)) is None:
            kept.append(record)
        else:
            dropped[why] += 1
    return Sieved(records=kept, dropped=dropped)


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pacore_lab filters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="stage", required=True)
    first = commands.add_parser("stage1", help="filter by the accuracy of the cached messages")
    second = commands.add_parser("stage2", help="filter by a checkpoint's synthesis accuracy")
    for command in (first, second):
        command.add_argument("file", type=Path, help="records: .jsonl or .parquet")
        add_arguments(command)
    for domain, most in BELOW.items():
        first.add_argument(f"--{domain}", type=float, default=most, help=f"threshold of {domain}; %(default)s")
    second.add_argument("--run", type=Path, required=True, metavar="OUT", help="folder of the checkpoint's run")
    given = parser.parse_args()
    if given.stage == "stage1":
        below = {domain: getattr(given, domain) for domain in BELOW}
        for domain, most in below.items():
            if not 0 < most <= 1:
                raise ConfigError(f"--{domain} is {most:g}; give a share above 0 and at most 1")
        finish(stage1(read_records(given.file), below), given)
        return
    read_run(given.run)
    records = read_records(given.file)
    finish(stage2(records, synthesis_scores(records, read_lines(given.run / "results.jsonl"))), given)


if __name__ == "__main__":
    main()
