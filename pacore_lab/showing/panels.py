"""Figures of several small plots in the lab's style (`pacore_lab.showing.plots`), written as SVG or PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pacore_lab.errors import ConfigError
from pacore_lab.results.disk import write
from pacore_lab.showing.plots import COLOURS, INK, MARKERS, framed, rendered
from pacore_lab.showing.text import safe

KINDS = (".png", ".svg")
PANEL = (4.2, 2.9)
"""Width and height in inches."""


def require_kind(to: Path) -> None:
    """Check the file's ending before the work starts. Raises ConfigError if it is neither .png nor .svg."""
    if to.suffix not in KINDS:
        raise ConfigError(f"--to {to} is neither .png nor .svg; name a file that ends in one of them")


def grid(titles: Sequence[str], x: str, ys: Sequence[str], columns: int = 2) -> tuple[Any, list[Any]]:
    """A figure and its axes, one per title, all with the label `x`. ys: the y labels."""
    from matplotlib.figure import Figure

    columns = min(columns, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + 0.3), layout="constrained")
    found = []
    for place, (title, y) in enumerate(zip(titles, ys, strict=True)):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.set_title(title, color=INK, fontsize=10, loc="left")
        framed(axes, x, y)
        found.append(axes)
    return figure, found


def colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def marker(place: int) -> str:
    return MARKERS[place % len(MARKERS)]


def label(name: str) -> str:
    """An external name as a legend entry; matplotlib would leave out a name that starts with _."""
    shown = safe(name)[:40]
    return f"\u200b{shown}" if shown.startswith("_") else shown


def bars(axes: Any, xs: Sequence[float], rows: Sequence[tuple[float, float, float]], place: int, name: str) -> None:
    """Points with intervals. rows: (y, low, high), nan for a gap."""
    ys = [y for y, _, _ in rows]
    down, up = [max(0.0, y - low) for y, low, _ in rows], [max(0.0, high - y) for y, _, high in rows]
    axes.errorbar(
        xs, ys, [down, up], fmt=marker(place), color=colour(place), ms=4, capsize=2, lw=1.1, label=label(name)
    )


def places(axes: Any) -> None:
    """Set up an x axis that counts messages."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("message, in the order shown")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def legend(figure: Any, axes: Sequence[Any]) -> None:
    """One legend for all panels: each name once, in the style it is first drawn in."""
    named: dict[str, Any] = {}
    for each in axes:
        for handle, name in zip(*each.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    if not named:
        return
    drawn = figure.legend(
        named.values(), named.keys(), loc="outside upper left", ncols=3, fontsize=8, frameon=False, labelcolor=INK
    )
    for text in drawn.get_texts():
        text.set_parse_math(False)


def save(figure: Any, to: Path) -> None:
    """Write the figure. Raises ConfigError if the file cannot be written."""
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        write(to, rendered(figure)[to.suffix.removeprefix(".")])
    except OSError as error:
        raise ConfigError(f"--to {to} cannot be written ({error.strerror}); name another file") from None
