"""Accuracy against a cost, as SVG for the report and PNG for a paper."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pacore_lab.showing.text import safe

INK = "#1c2025"  # the colour of text; an inlined plot has `currentColor` instead
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe & Ito's colour-blind safe set
MARKERS = "osD^vPX"
MOST_LABELS = 4
"""Up to this many methods are named at their points; more get a legend."""
AXES = {
    "ttc": "test-time compute (tokens per episode, log scale)",
    "critical_path": "critical path (longest chain of tokens per episode, log scale)",
    "seconds": "wall-clock (seconds per episode, log scale)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A method: cost per episode, and accuracy in [0, 1] with its 95 % interval."""

    name: str
    cost: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A family of methods, in ascending order of cost, with a band for the whole curve."""

    name: str
    cost: Sequence[float]
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def draw(
    points: Sequence[Point],
    cost: str = "ttc",
    *,
    lines: Sequence[Line] = (),
    front: Sequence[Point] = (),
    whole: bool = True,
) -> dict[str, bytes]:
    """The plot as "svg" and "png". cost: a key of `AXES`. front: points joined as a Pareto front.

    whole: show accuracies from 0 to 100 %, else only their range.
    """
    from matplotlib.figure import Figure

    few = len(points) <= MOST_LABELS and not lines
    figure = Figure(figsize=(6.4 if few else 8.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for line in lines:
        _add_line(axes, line)
    ordered = sorted(front, key=lambda point: point.cost)
    if len(ordered) > 1:
        xs, ys = [_place(point.cost) for point in ordered], [100 * point.accuracy for point in ordered]
        axes.step(xs, ys, where="post", color=INK, lw=0.9, ls=":", label="Pareto front")
    shown = sorted((_place(point.cost), i, point) for i, point in enumerate(points))
    for place, (x, i, point) in enumerate(shown):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        y, down, up = (
            100 * share for share in (point.accuracy, point.accuracy - point.low, point.high - point.accuracy)
        )
        name = None if few else safe(point.name)[:40]
        axes.errorbar([x], [y], [[down], [up]], fmt=marker, color=colour, ms=7, capsize=3, lw=1.6, label=name)
        if few:
            _label(axes, [x for x, _, _ in shown], place, point)
    xs = [x for x, _, _ in shown] + [x for line in lines for x in line.cost]
    _style(axes, cost, xs, whole)
    if not few:
        legend = figure.legend(loc="outside right upper", fontsize=8, frameon=False, labelcolor=INK)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return rendered(figure)


def _add_line(axes: Any, line: Line) -> None:
    low, mid, high = ([100 * share for share in shares] for shares in (line.low, line.accuracy, line.high))
    axes.fill_between(line.cost, low, high, color="#888888", alpha=0.18, lw=0)
    axes.plot(line.cost, mid, color="#666666", lw=1.2, marker=".", label=safe(line.name))


def _label(axes: Any, xs: Sequence[float], place: int, point: Point) -> None:
    """Neighbours are often close: labels alternate above and below, and lean away from a near neighbour."""
    x = xs[place]
    above = (len(xs) - place) % 2 == 1
    near_next = place + 1 < len(xs) and xs[place + 1] < 1.7 * x
    near_last = place > 0 and x < 1.7 * xs[place - 1]
    side = "center" if near_next == near_last else "right" if near_next else "left"
    axes.annotate(
        safe(point.name)[:40],
        (x, 100 * (point.high if above else point.low)),
        (0, 6 if above else -6),
        textcoords="offset points",
        ha=side,
        va="bottom" if above else "top",
        color=INK,
        fontsize=9.5,
        parse_math=False,
    )


def _style(axes: Any, cost: str, xs: Sequence[float], whole: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_xlim(min(xs) / 2, max(xs) * 2)
    if whole:
        axes.set_ylim(-12, 112)
        axes.set_yticks(range(0, 101, 20))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    framed(axes, AXES[cost], "accuracy (%)")


def framed(axes: Any, x: str, y: str) -> None:
    """The style that all plots share, with the labels of the axes."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(which="both", colors=INK)
    axes.grid(color="#888888", alpha=0.25, lw=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    axes.set_facecolor("none")


def rendered(figure: Any) -> dict[str, bytes]:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    pictures = {}
    # fonts stay text, which is small, searchable and scalable; the same run gives the same ids
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pacore"}):
        for name, canvas, metadata in (
            ("svg", FigureCanvasSVG, dict.fromkeys(("Date", "Creator", "Format", "Type"))),
            ("png", FigureCanvasAgg, {}),
        ):
            canvas(figure)
            buffer = io.BytesIO()
            figure.savefig(buffer, format=name, dpi=200, facecolor="white", metadata=metadata)
            pictures[name] = buffer.getvalue()
    return pictures


def _place(cost: float) -> float:
    """A cost on a log axis, to six digits: matplotlib fails on a lone point an ulp from a power of ten."""
    return max(float(f"{cost:.6g}"), 1e-9)


def _short(number: float) -> str:
    size, unit = (1e6, "M") if number >= 1e6 else (1e3, "k") if number >= 1e3 else (1, "")
    return f"{number / size:g}{unit}"
