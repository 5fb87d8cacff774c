"""Which messages a synthesis agrees with: `python -m pacore_lab copying OUT [OUT ...] --to FILE.png`.

A synthesis is a trajectory that was shown messages. For all syntheses of a run, this measures how often the answer is
that of message 1, 2, ... in the order shown, against the rate to expect if a message's place did not matter; and how
often it is the answer of most messages, of fewer, or new, and how often it is then right. The run's grader compares the
answers. Prints tables and writes a plot.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pacore_lab.analysis.agreement import (
    KINDS,
    QUARTERS,
    Estimate,
    Kind,
    Position,
    Synthesis,
    by_index,
    by_quarter,
    kinds,
    syntheses,
    widths,
)
from pacore_lab.config.command import one_line_errors
from pacore_lab.config.stored import regrading
from pacore_lab.errors import ConfigError
from pacore_lab.results.disk import read_lines
from pacore_lab.results.folder import read_run
from pacore_lab.showing import panels
from pacore_lab.showing.terminal import columns, count_of, points
from pacore_lab.showing.text import safe

MOST = 6
"""Values of |M| that are tabulated, the most frequent ones: |M| varies a little where responses are empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """The findings for one run. by_index: positions for each number of messages shown, from two on, ascending.

    by_quarter: positions for all syntheses with four messages or more, if their number varies; else empty.
    left_out: syntheses whose number of messages is not in `by_index`.
    """

    syntheses: int
    problems: int
    kinds: Sequence[Kind]
    by_index: Mapping[int, Sequence[Position]]
    by_quarter: Sequence[Position]
    left_out: int


def copied(found: Sequence[Synthesis]) -> Copied:
    counts = widths([each for each in found if len(each.shown) > 1])
    told = sorted(count for count, _ in counts.most_common(MOST))
    wide = [each for each in found if len(each.shown) >= QUARTERS]
    return Copied(
        syntheses=len(found),
        problems=len({each.problem for each in found}),
        kinds=kinds(found),
        by_index={count: by_index([each for each in found if len(each.shown) == count]) for count in told},
        by_quarter=by_quarter(wide) if len(widths(wide)) > 1 else (),
        left_out=sum(counts.values()) - sum(counts[count] for count in told),
    )


async def read(out: Path, grader_words: Sequence[str] = ()) -> list[Synthesis]:
    """The syntheses of a run's folder. grader_words: as for `pacore_lab.commands.regrade`.

    Raises ConfigError for a folder without a run or without syntheses, and for answers that cannot be compared.
    """
    settings, versions = read_run(out, "problems", "grader")
    grader, _, _ = regrading(settings, grader_words)
    if not getattr(grader, "comparable", True):
        raise ConfigError(f"{out}: {type(grader).__name__} cannot tell whether two answers are the same")
    try:
        await grader.start()
        found = await syntheses(read_lines(out / "results.jsonl"), grader)
    finally:
        await grader.close()
    if not found:
        raise ConfigError(
            f"{out} ({versions['strategy']}) has no trajectory that was shown messages; name a run of several rounds"
        )
    return found


def print_copied(runs: Mapping[str, Copied], console: Console | None = None) -> None:
    console = console or Console()
    table = columns("the answer is", ("share % [95 %]", "right % [95 %]", "graded"), width=40)
    for name, run in runs.items():
        head = f"{name}: {run.syntheses:,} syntheses of {count_of(run.problems, 'problem')}"
        table.add_row(Text(safe(head), style="bold"))
        for each in run.kinds:
            graded = "0" if each.score is None else f"{each.score.syntheses:,}"
            table.add_row(*map(Text, (f"  {each.name}", _percent(each.share), _percent(each.score), graded)))
    console.print(table)
    console.print()
    places = columns("message", ("same answer %", "expected %", "lead [95 %]", "syntheses"), width=40)
    for name, run in runs.items():
        lists = {f"{name}, of {count}": found for count, found in run.by_index.items()}
        if run.by_quarter:
            lists[f"{name}, by part of the list"] = run.by_quarter
        for head, found in lists.items():
            places.add_row(Text(safe(head), style="bold"))
            for position in found:
                ends = f"[{points(position.lead.low, '')}, {points(position.lead.high, '')}]"
                rates = (f"{100 * rate:.1f}" for rate in (position.expected + position.lead.mean, position.expected))
                cells = (*rates, f"{points(position.lead.mean)} {ends}", f"{position.lead.syntheses:,}")
                places.add_row(*map(Text, (f"  {position.name}", *cells)))
    if places.row_count:
        console.print(places)
    said = [
        "lead: how much more often the answer is that of this message than of an average message of its list, in "
        "points; one in twenty such intervals misses",
        "strategy/order=published gives each place to the same rank by length: a lead may be due to length, and "
        "strategy/order=shuffle tells the two apart",
    ]
    said += [f"{name}: {run.left_out} were shown other numbers of messages" for name, run in runs.items()
             if run.left_out]  # fmt: skip
    for sentence in said if places.row_count else ():
        console.print(Text(safe(sentence), style="dim"), soft_wrap=True)


def draw(runs: Mapping[str, Copied]) -> Any:
    """Shares and accuracies by kind of answer; leads by place, one panel per number of messages."""
    graded = any(each.score for run in runs.values() for each in run.kinds)
    counts = sorted({count for run in runs.values() for count in run.by_index})
    lists = [(f"By place, of {count} messages", {name: run.by_index.get(count, ()) for name, run in runs.items()})
             for count in counts]  # fmt: skip
    if any(run.by_quarter for run in runs.values()):
        lists.append(("By part of the list", {name: run.by_quarter for name, run in runs.items()}))
    titles = ["Whose answer it is", *(["How often it is right"] if graded else []), *(title for title, _ in lists)]
    leads = ["P(same) − expected (points)"] * len(lists)
    ys = ["share of syntheses (%)", *(["right (%)"] if graded else []), *leads]
    figure, axes = panels.grid(titles, "", ys)
    for place, (name, run) in enumerate(runs.items()):
        shift = 0.15 * (place - (len(runs) - 1) / 2)
        rows = {each.name: each for each in run.kinds}
        for panel, key in zip(axes, ("share", "score") if graded else ("share",), strict=False):
            known = {kind: value for kind in rows if (value := getattr(rows[kind], key)) is not None}
            xs = [KINDS.index(kind) + shift for kind in known]
            panels.bars(panel, xs, [_hundred(value) for value in known.values()], place, name)
            panel.set_xticks(range(len(KINDS)), KINDS, rotation=25, ha="right", fontsize=8)
            panel.set_xlim(-0.5, len(KINDS) - 0.5)
            panel.set_ylim(-4, 104)
        for panel, (_, found) in zip(axes[1 + graded :], lists, strict=True):
            shown = found[name]
            xs = [number + 1 + shift for number in range(len(shown))]
            panels.bars(panel, xs, [_hundred(each.lead) for each in shown], place, name)
            panel.axhline(0, color="#666666", lw=0.8, ls=":")
            panels.places(panel)
        if run.by_quarter:
            axes[-1].set_xlabel("part of the list")
            axes[-1].set_xticks(range(1, QUARTERS + 1), [each.name for each in run.by_quarter])
    panels.legend(figure, axes)
    return figure


def _hundred(value: Estimate) -> tuple[float, float, float]:
    return 100 * value.mean, 100 * value.low, 100 * value.high


def _percent(value: Estimate | None) -> str:
    return "–" if value is None else "{:.1f} [{:.1f}, {:.1f}]".format(*_hundred(value))


def names_of(outs: Sequence[Path]) -> list[str]:
    """Names each run after its folder, or its path if that is ambiguous. Raises ConfigError for a run named twice."""
    if len({out.resolve() for out in outs}) < len(outs):
        raise ConfigError("a run is named twice; name each folder once")
    short = [out.resolve().name for out in outs]
    return [name if short.count(name) == 1 else str(out) for name, out in zip(short, outs, strict=True)]


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pacore_lab copying",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--grader", metavar="OPTION", help="reads and compares the answers; default: the run's own")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="where the plot goes: .png or .svg")
    given = parser.parse_args()
    panels.require_kind(given.to)
    words = [] if given.grader is None else [f"grader={given.grader}"]
    runs = {}
    for name, out in zip(names_of(given.out), given.out, strict=True):
        runs[name] = copied(asyncio.run(read(out, words)))
    print_copied(runs)
    panels.save(draw(runs), given.to)
    Console().print(Text(safe(f"plot  {given.to}")), soft_wrap=True)
