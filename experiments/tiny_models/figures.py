"""Accuracy against tokens for families of methods, in the style of the paper's Figures 1 and 4."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from pacore_lab import analysis
from pacore_lab.analysis import Method
from pacore_lab.showing.plots import COLOURS, INK


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """Methods that belong on one line, in ascending order of tokens."""

    name: str
    methods: Sequence[Method]
    dashed: bool = False


def draw(path: Path, families: Sequence[Family]) -> None:
    """Means with 95 % intervals over problems; tokens are those of an episode's test-time compute."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for family, colour in zip(families, COLOURS, strict=False):
        rows = [analysis.row_of(method) for method in family.methods]
        known = [(row.ttc or 0, 100 * (row.accuracy or 0), 100 * (row.low or 0), 100 * (row.high or 0)) for row in rows]
        xs, means, lows, highs = zip(*known, strict=True)
        bars = [[mean - low for mean, low in zip(means, lows, strict=True)]]
        bars.append([high - mean for mean, high in zip(means, highs, strict=True)])
        style = "--" if family.dashed else "-"
        axes.errorbar(xs, means, bars, color=colour, ls=style, marker="o", ms=4, capsize=2, label=family.name)
    axes.set_xscale("log")
    axes.set_ylim(0, 102)
    axes.set_xlabel("test-time compute (tokens per episode, log scale)", color=INK)
    axes.set_ylabel("accuracy (%)", color=INK)
    axes.grid(color="#888888", alpha=0.25, lw=0.6)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
