"""What a step of preparing training data kept and dropped, and how its command ends."""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pacore_lab.errors import ConfigError
from pacore_lab.results.disk import read_lines
from pacore_lab.results.folder import read_run
from pacore_lab.showing.text import safe
from pacore_lab.training.records import Record, write_records
from pacore_lab.training.split import require_disjoint


@dataclass(frozen=True, kw_only=True)
class Sieved:
    """The records kept, and the numbers of problems dropped, by reason."""

    records: Sequence[Record]
    dropped: Counter[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that every command takes."""
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="where the records go: .jsonl, .parquet")
    parser.add_argument(
        "--not-in",
        type=Path,
        action="append",
        default=[],
        metavar="OUT",
        help="folder of an evaluation run; refuse to write problems it also asks",
    )


def finish(found: Sieved, given: argparse.Namespace) -> None:
    """Print the tables and write the file. Raises ConfigError if nothing is left or an evaluation would leak."""
    print_sieved(found)
    if not found.records:
        raise ConfigError("no problem is left; nothing was written")
    asked = {record.id: record.conversation for record in found.records}
    for out in given.not_in:
        read_run(out)
        require_disjoint(asked, (tuple(line["problem"]) for line in read_lines(out / "results.jsonl")), str(out))
    write_records(given.to, found.records)
    Console().print(Text(safe(f"records  {given.to}")), soft_wrap=True)


def print_sieved(found: Sieved, console: Console | None = None) -> None:
    """Print a line per domain that is left and a line per reason."""
    console = console or Console()
    kept = _table("kept", "problems", "messages", "graded", "mean accuracy %")
    for domain in sorted({record.domain for record in found.records}):
        chosen = [record for record in found.records if record.domain == domain]
        scores = [score for record in chosen for score in record.scores]
        graded = [score for score in scores if score is not None]
        accuracy = f"{100 * statistics.fmean(graded):.1f}" if graded else "–"
        kept.add_row(domain, f"{len(chosen):,}", f"{len(scores):,}", f"{len(graded):,}", accuracy)
    dropped = _table("dropped", "problems")
    for why, count in found.dropped.most_common():
        dropped.add_row(Text(safe(why)), f"{count:,}")
    for table in (kept, dropped):
        if table.row_count:
            console.print(table)
            console.print()


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(first, overflow="fold")
    for head in others:
        table.add_column(head, justify="right", no_wrap=True)
    return table
