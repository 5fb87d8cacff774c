"""Training curves: `python -m pacore_lab curves NAME=LOG.jsonl [NAME=LOG ...] --to FILE.png`.

Plots reward and length of the responses, emergent correctness (right although every message was wrong) and
cross-checking words, as in Figure 5 of arXiv 2601.05593; with --accuracy FILE.json, also accuracy on a benchmark. Rates
are pooled over windows of steps: they come from summed counts, never from a mean of ratios. Prints a line per window.

LOG has a JSON object per step, in which only "step" is required: {"step": 1, "reward": 0.4, "length": 812.5,
"counts": {"responses": 1024, "graded": 1024, "all_wrong": 320, "emergent": 12, "cross_checks": 90, "concluding": 11}}.
FILE.json: {"name": [{"step": 0, "mean": 31.2, "low": 28.9, "high": 33.6}, ...]}, in percent.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pacore_lab.config.command import one_line_errors
from pacore_lab.errors import ConfigError
from pacore_lab.showing import panels
from pacore_lab.showing.terminal import columns
from pacore_lab.showing.text import safe
from pacore_lab.training.logs import WINDOW, Measured, Step, read_accuracy, read_log, windows

SMOOTH = 5
"""Running means cover a fifth of a window, centred on the step."""
Value = Callable[[Step], float | None]


def draw(logs: Mapping[str, Sequence[Step]], accuracy: Mapping[str, Sequence[Measured]], window: int) -> Any:
    """A figure with a panel for each quantity that some log has. Raises ConfigError if there is none."""
    every = [step for steps in logs.values() for step in steps]
    wanted = [
        ("Reward", "mean reward", _curve(lambda step: step.reward), _some(every, lambda step: step.reward)),
        ("Response length", "tokens per response", _curve(lambda step: step.length),
         _some(every, lambda step: step.length)),
        (f"Emergent correctness, windows of {window} steps", "right (%), every message wrong", _emergent,
         any(step.counts is not None and step.counts["all_wrong"] for step in every)),
        ("Cross-checking words (dotted: conclusions)", "words per response", _words, _some(every, _checks)),
    ]  # fmt: skip
    shown = [(title, y, paint) for title, y, paint, there in wanted if there]
    curves = {name: entries for name, entries in accuracy.items() if entries}
    titles, ys = [title for title, _, _ in shown], [y for _, y, _ in shown]
    if curves:
        titles, ys = [*titles, "Benchmark accuracy, 95 % intervals"], [*ys, "accuracy (%)"]
    if not titles:
        raise ConfigError("there is nothing to draw: no log has a reward, a length or counts")
    figure, axes = panels.grid(titles, "training step", ys)
    for each, (_, _, paint) in zip(axes, shown, strict=False):
        for place, (name, steps) in enumerate(logs.items()):
            paint(each, place, name, steps, window)
    others = [name for name in curves if name not in logs]
    for name, entries in curves.items():  # a name shared with a log gets the log's colour
        place = list(logs).index(name) if name in logs else len(logs) + others.index(name)
        rows = [(entry.mean, entry.low, entry.high) for entry in entries]
        panels.bars(axes[-1], [entry.step for entry in entries], rows, place, name)
        axes[-1].plot([entry.step for entry in entries], [entry.mean for entry in entries],
                      color=panels.colour(place), lw=1.1)  # fmt: skip
    known = [step.step for step in every] + [entry.step for entries in curves.values() for entry in entries]
    margin = max(1.0, 0.03 * (max(known) - min(known)))
    for each in axes:  # one scale, so that panels can be compared
        each.set_xlim(min(known) - margin, max(known) + margin)
    panels.legend(figure, axes)
    return figure


def running_mean(xs: Sequence[int], ys: Sequence[float | None], width: int) -> list[float]:
    """The mean of the values within width / 2 of each step, nan if there are none; xs ascending."""
    means, start, end, half = [], 0, 0, width / 2
    for x in xs:
        while xs[start] < x - half:
            start += 1
        while end < len(xs) and xs[end] <= x + half:
            end += 1
        known = [y for y in ys[start:end] if y is not None]
        means.append(math.fsum(known) / len(known) if known else math.nan)
    return means


def _curve(value: Value, style: str = "-", points: bool = True) -> Callable[..., None]:
    def paint(axes: Any, place: int, name: str, steps: Sequence[Step], window: int) -> None:
        xs, ys = [step.step for step in steps], [value(step) for step in steps]
        shade = panels.colour(place)
        if points:
            axes.plot(xs, [math.nan if y is None else y for y in ys], ".", color=shade, alpha=0.25, ms=3, mew=0)
        width = max(1, window // SMOOTH)
        shown = panels.label(name) if style == "-" else None
        axes.plot(xs, running_mean(xs, ys, width), style, color=shade, lw=1.4, label=shown)

    return paint


def _words(axes: Any, place: int, name: str, steps: Sequence[Step], window: int) -> None:
    _curve(_checks)(axes, place, name, steps, window)
    _curve(lambda step: _per_response(step, "concluding"), style=":", points=False)(axes, place, name, steps, window)


def _emergent(axes: Any, place: int, name: str, steps: Sequence[Step], window: int) -> None:
    """A window in which no instance was all wrong leaves a gap."""
    nothing = (math.nan, math.nan, math.nan)
    found = windows(steps, window)
    rows = [
        nothing if each.rate is None or each.low is None or each.high is None
        else (100 * each.rate, 100 * each.low, 100 * each.high)
        for each in found
    ]  # fmt: skip
    xs = [(each.first + each.last) / 2 for each in found]
    panels.bars(axes, xs, rows, place, name)
    axes.plot(xs, [y for y, _, _ in rows], color=panels.colour(place), lw=1.1)
    axes.set_ylim(bottom=0)


def _checks(step: Step) -> float | None:
    return _per_response(step, "cross_checks")


def _per_response(step: Step, key: str) -> float | None:
    return step.counts[key] / step.counts["responses"] if step.counts and step.counts["responses"] else None


def _some(steps: Sequence[Step], value: Value) -> bool:
    return any(value(step) is not None for step in steps)


def print_windows(logs: Mapping[str, Sequence[Step]], size: int, console: Console | None = None) -> None:
    console = console or Console()
    heads = ("steps", "reward", "length", "all wrong", "emergent", "rate % [95 %]")
    table = columns("log", heads, width=24)
    for name, steps in logs.items():
        for each in windows(steps, size):
            rate = "–"
            if each.rate is not None and each.low is not None and each.high is not None:
                rate = f"{100 * each.rate:.2f} [{100 * each.low:.2f}, {100 * each.high:.2f}]"
            cells = (f"{each.first}–{each.last}", _told(each.reward, ".3f"), _told(each.length, ",.0f"),
                     _told(each.all_wrong, ",d"), _told(each.emergent, ",d"), rate)  # fmt: skip
            table.add_row(*(Text(safe(cell)) for cell in (name, *cells)))
    console.print(table)
    console.print(
        Text(
            "rate: share right among the responses whose messages were all wrong, pooled over the window; its interval "
            "treats steps as independent, and responses of one step as dependent",
            style="dim",
        ),
        soft_wrap=True,
    )


def _told(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pacore_lab curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log", nargs="+", metavar="NAME=LOG", help="training logs, each with the name to show")
    parser.add_argument("--accuracy", type=Path, metavar="FILE.json", help="benchmark accuracy over steps")
    parser.add_argument("--window", type=int, default=WINDOW, help="steps per window; %(default)s")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="where the plot goes: .png or .svg")
    given = parser.parse_args()
    panels.require_kind(given.to)
    if given.window < 1:
        raise ConfigError(f"--window is {given.window}; give 1 or more steps")
    logs: dict[str, list[Step]] = {}
    for word in given.log:
        name, _, path = word.partition("=")
        if not name or not path:
            raise ConfigError(f"{word} is not NAME=LOG; name the log, for instance ours={word}")
        if name in logs:
            raise ConfigError(f"two logs are called {name}; give each a name of its own")
        logs[name] = read_log(Path(path))
    accuracy = read_accuracy(given.accuracy) if given.accuracy is not None else {}
    figure = draw(logs, accuracy, given.window)
    print_windows(logs, given.window)
    panels.save(figure, given.to)
    Console().print(Text(safe(f"plot  {given.to}")), soft_wrap=True)


if __name__ == "__main__":
    main()
