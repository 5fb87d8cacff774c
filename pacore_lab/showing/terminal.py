"""What a run shows in a terminal. Text from a model or a server is hostile: it goes through `safe` first."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.console import Group as Stack
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pacore_lab.analysis import Compacted, Difference, Group, Row, Tally
from pacore_lab.showing.text import safe

WINDOW = 30.0
"""Seconds over which tokens per second are averaged."""
PLAIN_EVERY = 10.0
"""Seconds between progress lines if there is no terminal to redraw."""


def print_answer(text: str, console: Console | None = None) -> None:
    """A model's answer, as plain text."""
    (console or Console()).print(Text(safe(text)), soft_wrap=True)


class Progress:
    """A live bar while a run is in progress; without a terminal, a plain line at most every ten seconds.

    ```python
    with Progress(total=120) as progress:
        progress.update(done=3, trajectories=40, running=16, waiting=64, tokens=31_337, failures=0, retries=2)
    ```
    """

    def __init__(self, total: int, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._start = self._printed = clock()
        self._window = deque([(self._start, 0)])
        self._done = self._trajectories = self._running = self._waiting = self._failures = self._retries = 0
        redraws = self._console.is_terminal and not self._console.is_dumb_terminal
        live = Live(get_renderable=self._frame, console=self._console, refresh_per_second=4, transient=True)
        self._live = live if redraws else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        self._print()

    def update(
        self,
        *,
        done: int,
        trajectories: int = 0,
        running: int = 0,
        waiting: int = 0,
        tokens: int = 0,
        failures: int = 0,
        retries: int = 0,
    ) -> None:
        """Set totals so far, not increments: episodes done; trajectories done, running, waiting; tokens generated."""
        self._done, self._trajectories, self._running, self._waiting = done, trajectories, running, waiting
        self._failures, self._retries = failures, retries
        now = self._clock()
        self._window.append((now, tokens))
        while now - self._window[0][0] > WINDOW and len(self._window) > 1:
            self._window.popleft()
        if not self._live and now - self._printed >= PLAIN_EVERY:
            self._print()

    @property
    def tokens_per_second(self) -> float:
        """The rate over the last half minute; falls while nothing arrives."""
        (since, before), (_, tokens) = self._window[0], self._window[-1]
        return (tokens - before) / max(self._clock() - since, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """The time left at the pace so far; None until an episode is done."""
        if not self._done:
            return None
        return (self._clock() - self._start) / self._done * (self.total - self._done)

    def _print(self) -> None:
        self._printed = self._clock()
        self._console.print(Text(f"{self._count()} | {self._state()}"), soft_wrap=True)

    def _frame(self) -> Stack:
        line = Table.grid(padding=(0, 1))
        line.add_row(ProgressBar(total=self.total, completed=self._done, width=28), Text(self._count()))
        return Stack(line, Text(self._state(), style="dim", no_wrap=True, overflow="ellipsis"))

    def _count(self) -> str:
        left = self.seconds_left
        ahead = "" if left is None or self._done == self.total else f", {duration(left)} left"
        return f"{self._done}/{self.total} episodes in {duration(self._clock() - self._start)}{ahead}"

    def _state(self) -> str:
        parts = [f"{self._trajectories:,} trajectories", f"{self.tokens_per_second:,.0f} tokens/s"]
        parts += [f"{self._failures} failed"] if self._failures else []
        parts += [f"{self._retries} retried"] if self._retries else []
        return ", ".join([*parts, f"{self._running} running", f"{self._waiting} waiting"])


def print_table(
    rows: Sequence[Row],
    tally: Tally,
    *,
    compacted: Sequence[Compacted] = (),
    report: Path | None = None,
    results: Path | None = None,
    console: Console | None = None,
) -> None:
    """The outcome of a run: a row per method, what was drawn and what failed, differences in words, and file paths."""
    console = console or Console()
    console.print(methods_table(rows, width=22))
    console.print(Text("TTC, path (the longest chain of tokens) and time: mean per episode", style="dim"))
    for sentence in passed_on(compacted):
        console.print(Text(sentence, style="dim"), soft_wrap=True)
    console.print()
    said = [drawn(tally), *missing(rows), *([failures(tally)] if tally.reasons else []), *warned(tally)]
    said += [*grouped(rows), *judged(rows)]
    said += [in_words(difference) for row in rows for difference in row.versus]
    said += [f"{name}  {path}" for name, path in (("report ", report), ("results", results)) if path is not None]
    for sentence in said:
        console.print(Text(safe(sentence)), soft_wrap=True)


def methods_table(rows: Sequence[Row], width: int) -> Table:
    """A row per method; longer names are folded at `width`."""
    table = columns("method", ("accuracy % [95 %]", "TTC k", "path k", "time", "graded"), width)
    for row in rows:
        time_taken = "–" if row.seconds is None else duration(row.seconds)
        graded = f"{row.graded}/{row.episodes}"
        cells = (row.method, percent(row), kilo(row.ttc), kilo(row.critical_path), time_taken, graded)
        table.add_row(*(Text(safe(cell)) for cell in cells))
    return table


def columns(name: str, numbers: Sequence[str], width: int) -> Table:
    """An empty table with a column of names and columns of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(name, overflow="fold", max_width=width)
    for head in numbers:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def drawn(tally: Tally) -> str:
    cut = f", {tally.truncated} cut off at the token limit" if tally.truncated else ""
    blind = (
        f", {tally.uncounted:,} without a token count from the server: TTC is a lower bound" if tally.uncounted else ""
    )
    return f"{tally.sampled:,} trajectories sampled, {tally.reused:,} reused from the store{cut}{blind}"


def missing(rows: Sequence[Row]) -> list[str]:
    """A sentence for each method that has episodes without a grade, which its accuracy leaves out."""
    return [
        f"{row.method}: {row.ungraded} of {row.episodes} episodes ungraded, {row.failed} failed; not in its accuracy"
        for row in rows
        if row.ungraded or row.failed
    ]


def failures(tally: Tally, most: int = 5) -> str:
    shown = [f"{count} × {kind}: {reason}" for (kind, reason), count in tally.reasons.most_common(most)]
    rest = sum(tally.reasons.values()) - sum(count for _, count in tally.reasons.most_common(most))
    return "what went wrong: " + "; ".join([*shown, *([f"{rest} more for other reasons"] if rest else [])])


def warned(tally: Tally, most: int = 3) -> list[str]:
    """Why grades may be wrong: the most frequent warnings on final answers and on first-round samples."""
    said = []
    for kind, noun in (("answer", "final answers"), ("sample", "samples")):
        found = [(count, text) for (which, text), count in tally.warnings.most_common() if which == kind]
        if found:
            said.append(f"to check among {noun}: " + "; ".join(f"{count} × {text}" for count, text in found[:most]))
    return said


def grouped(rows: Sequence[Row]) -> list[str]:
    """The last method's accuracy by group of problems, and the groups' unweighted mean."""
    groups = rows[-1].groups
    if not groups:
        return []
    each = [f"{group.name} {percent(group)} ({count_of(group.problems, 'problem')})" for group in groups[:12]]
    rest = [f"{len(groups) - 12} more"] if len(groups) > 12 else []
    row = rows[-1]
    mean = ""
    if row.group_mean is not None and row.group_low is not None and row.group_high is not None:
        ends = f"[{100 * row.group_low:.1f}, {100 * row.group_high:.1f}]"
        mean = f"; unweighted mean of groups {100 * row.group_mean:.1f} {ends}"
    return [f"{row.method} by group: {', '.join([*each, *rest])}{mean}"]


def judged(rows: Sequence[Row]) -> list[str]:
    row = rows[-1]
    tokens = [f"judge: {row.judge_tokens:,.0f} tokens per episode, not in TTC"] if row.judge_tokens else []
    error = row.calibration_error
    return tokens + ([f"{row.method}: RMS calibration error {100 * error:.1f} %"] if error is not None else [])


def passed_on(compacted: Sequence[Compacted], most: int = 4) -> list[str]:
    """How much the messages of the first rounds, and of the last one, kept; empty for a run without messages."""
    if not compacted:
        return []
    few = len(compacted) <= most
    shown = compacted if few else [*compacted[: most - 1], compacted[-1]]
    each = [
        f"round {one.round} passes on {share(one.ratio)} of the characters, {share(one.kept)} of the answers"
        for one in shown
    ]
    return [f"compaction: {'; '.join(each)}" + ("" if few else " (the others are in the report)")]


def share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def in_words(difference: Difference) -> str:
    cost = "" if difference.ttc_ratio is None else f", at {difference.ttc_ratio:.1f} × the tokens"
    lead = f"{points(difference.mean)} points [{points(difference.low, '')}, {points(difference.high, '')}]"
    return f"{difference.method} − {difference.baseline}: {lead} over {count_of(difference.problems, 'problem')}{cost}"


def points(share: float, plus: str = "+") -> str:
    """0.031 as "+3.1", -0.012 as "−1.2", with a real minus sign."""
    value = round(100 * share, 1) + 0.0  # + 0.0 avoids a negative zero
    return f"{plus if value > 0 else '−' if value < 0 else ''}{abs(value):.1f}"


def percent(row: Row | Group) -> str:
    if row.accuracy is None or row.low is None or row.high is None:
        return "ungraded"
    return f"{100 * row.accuracy:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"


def kilo(tokens: float | None) -> str:
    """Thousands of tokens, to three figures."""
    if tokens is None:
        return "–"
    size = tokens / 1000
    return f"{size:,.0f}" if size >= 100 else f"{size:.1f}" if size >= 10 else f"{size:.2f}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    minutes, hours = divmod(round(seconds), 60), divmod(round(seconds / 60), 60)
    return f"{minutes[0]}m{minutes[1]:02d}s" if seconds < 3600 else f"{hours[0]}h{hours[1]:02d}m"


def count_of(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
