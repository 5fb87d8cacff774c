"""What a model attends to: `python -m pacore_lab attention OUT --model FOLDER --to FILE.png`.

Runs syntheses of a run (trajectories that were shown messages) through the model and sums the attention that response
tokens pay to each message. The sum is divided by the attention the message would get if it were spread evenly over all
tokens so far: at 1, a message gets no more than any other text. The results are by place in the list, with right and
wrong messages apart. All layers and heads count equally, and attention is not proof of use. FOLDER should hold the
weights that the run sampled from, with YaRN in their config.json.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from rich.console import Console
from rich.text import Text

from pacore_lab.analysis.intervals import student
from pacore_lab.analysis.methods import Floats
from pacore_lab.config.command import one_line_errors
from pacore_lab.errors import ConfigError
from pacore_lab.results.folder import read_run
from pacore_lab.showing import panels
from pacore_lab.showing.terminal import columns
from pacore_lab.showing.text import safe
from pacore_lab.training.attended import SERIES, Paid, Reader
from pacore_lab.training.syntheses import rebuilt

EPISODES = 50
MOST = 5
"""How many different numbers of messages get a table, the most frequent ones."""
Interval: TypeAlias = tuple[float, float, float]
"""Mean, low and high; nan if unknown."""


def interval(found: Sequence[Paid], values: Sequence[float], least: float = 0.0) -> Interval:
    """Mean over problems of the syntheses' values, with its 95 % t-interval; syntheses with a nan are left out.

    least: the smallest value possible.
    """
    problems: dict[str, list[float]] = {}
    for each, value in zip(found, values, strict=True):
        if math.isfinite(value):
            problems.setdefault(each.problem, []).append(value)
    means = np.array([math.fsum(known) / len(known) for known in problems.values()])
    if not len(means):
        return math.nan, math.nan, math.nan
    mean, half = float(means.mean()), math.nan
    if len(means) > 1:
        half = student(len(means) - 1) * float(means.std(ddof=1)) / math.sqrt(len(means))
    return mean, half if math.isnan(half) else max(least, mean - half), mean + half


def means(found: Sequence[Paid]) -> dict[str, Interval]:
    """Mean ratios by `SERIES`, each over a synthesis's messages of that series; then right minus wrong within each."""
    values = {series: [_mean(each.of(series)) for each in found] for series in SERIES}
    rows = {series: interval(found, column) for series, column in values.items()}
    differences = [right - wrong for right, wrong in zip(values["right"], values["wrong"], strict=True)]
    return {**rows, "right − wrong": interval(found, differences, -math.inf)}


def by_place(found: Sequence[Paid]) -> dict[int, dict[str, list[Interval]]]:
    """Ratios by number of messages shown (the most frequent numbers, ascending), series and place."""
    counts = Counter(len(each.shares) for each in found)
    tables = {}
    for count in sorted(count for count, _ in counts.most_common(MOST)):
        some = [each for each in found if len(each.shares) == count]
        tables[count] = {
            series: [interval(some, [float(each.of(series)[place]) for each in some]) for place in range(count)]
            for series in SERIES
        }
    return tables


def print_paid(found: Sequence[Paid], left_out: Mapping[str, int], console: Console | None = None) -> None:
    console = console or Console()
    table = columns("message", ("× even [95 %]", "right [95 %]", "wrong [95 %]"), width=30)
    overall = means(found)
    table.add_row("mean of all", *(_told(overall[series]) for series in SERIES))
    for count, rows in by_place(found).items():
        table.add_row(Text(f"of {count}", style="bold"))
        for place in range(count):
            table.add_row(f"  {place + 1}", *(_told(rows[series][place]) for series in SERIES))
    console.print(table)
    share = 100 * interval(found, [float(each.shares.sum()) for each in found])[0]
    said = [
        f"{len(found):,} syntheses of {len({each.problem for each in found})} problems; {share:.1f} % of the attention "
        "of their responses goes to messages",
        f"right − wrong within a synthesis: {_told(overall['right − wrong'])}",
        *(f"left out: {count} × {why}" for why, count in left_out.items()),
    ]
    for sentence in said:
        console.print(Text(safe(sentence)), soft_wrap=True)


def draw(found: Sequence[Paid]) -> Any:
    """A panel with the means of all, right and wrong messages, and one by place for each number of messages."""
    overall, tables = means(found), by_place(found)
    titles = ["All messages", *(f"By place, of {count} messages" for count in tables)]
    figure, axes = panels.grid(titles, "", ["attention × even"] * len(titles))
    for number, series in enumerate(SERIES):
        panels.bars(axes[0], [number], [overall[series]], number, series)
        for panel, (count, rows) in zip(axes[1:], tables.items(), strict=True):
            panels.bars(
                panel, [place + 1 + 0.15 * (number - 1) for place in range(count)], rows[series], number, series
            )
            panels.places(panel)
    axes[0].set_xticks(range(len(SERIES)), SERIES)
    axes[0].set_xlim(-0.5, len(SERIES) - 0.5)
    for panel in axes:
        panel.axhline(1, color="#666666", lw=0.8, ls=":")
        panel.set_ylim(bottom=0)
    panels.legend(figure, axes)
    return figure


def _mean(ratios: Floats) -> float:
    known = ratios[np.isfinite(ratios)]
    return float(known.mean()) if len(known) else math.nan


def _told(value: Interval) -> str:
    if math.isnan(value[0]):
        return "–"
    ends = "" if math.isnan(value[1]) else f" [{value[1]:.2f}, {value[2]:.2f}]"
    return f"{value[0]:.2f}{ends}".replace("-", "−")


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pacore_lab attention",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="folder of a run")
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="checkpoint from save_pretrained")
    parser.add_argument("--episodes", type=int, default=EPISODES, metavar="N", help="episodes to read; %(default)s")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="where the plot goes: .png or .svg")
    given = parser.parse_args()
    panels.require_kind(given.to)
    if given.episodes < 1:
        raise ConfigError(f"--episodes is {given.episodes}; give 1 or more")
    items, left_out = rebuilt(given.out, given.episodes)
    settings, versions = read_run(given.out, "model", "strategy")
    if not items and not left_out:
        name = f"{given.out} ({versions['strategy']})"
        raise ConfigError(f"{name} has no trajectory that was shown messages; name a run of several rounds")
    found: list[Paid] = []
    if items:
        reader = Reader.load(given.model, settings["model"]["chat_template_kwargs"])
        for item in items:
            paid = reader.read(item)
            if isinstance(paid, str):
                left_out[paid] += 1
            else:
                found.append(paid)
    if not found:
        raise ConfigError(f"{given.out}: nothing to draw, since every synthesis was left out ({', '.join(left_out)})")
    print_paid(found, left_out)
    panels.save(draw(found), given.to)
    Console().print(Text(safe(f"plot  {given.to}")), soft_wrap=True)


if __name__ == "__main__":
    main()
