"""Counts how much was drawn and what went wrong, over the lines of results.jsonl."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pacore_lab.analysis.methods import Line

REASONS = 500
"""How many different reasons, and different warnings, are told apart; further ones are counted together."""


@dataclass
class Tally:
    """Counts of the trajectories drawn, and of what went wrong, by kind and reason.

    Kinds: "episode"; "ungraded"; "trajectory", in a round; "side call", of a judge or a summariser; "note", left by a
    strategy on a departure from its plan.
    warnings: why grades may be wrong, by kind ("answer": an episode's final one; "sample": one of its first round).
    A sample that several repeats share is counted in each of them.
    """

    episodes: int = 0
    sampled: int = 0
    reused: int = 0
    truncated: int = 0
    uncounted: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    warnings: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, line: Line) -> None:
        self.episodes += 1
        self.sampled += line["tokens"]["sampled"]
        self.reused += line["tokens"]["reused"]
        if line["error"] is not None:
            _count(self.reasons, "episode", line["error"])
        elif line["grade"]["score"] is None and line["ground_truth"] is not None:
            _count(self.reasons, "ungraded", line["grade"]["reason"].removeprefix("ungraded: "))
        for trajectory in (t for round_ in line["trajectories"] for t in round_):
            self.truncated += trajectory["finish_reason"] == "length"
            self.uncounted += trajectory["error"] is None and not trajectory["counted"]
            if trajectory["error"] not in (None, "aborted"):  # a strategy aborts on purpose: not a fault
                _count(self.reasons, "trajectory", trajectory["error"])
        for other in line.get("others", ()):
            if other["error"] not in (None, "aborted"):
                _count(self.reasons, "side call", other["error"])
        for note in line.get("notes", ()):
            _count(self.reasons, "note", note)
        for kind, graded in (("answer", [line["grade"]]), ("sample", line["samples"])):
            for warning in (warning for grade in graded for warning in grade.get("warnings", ())):
                _count(self.warnings, kind, warning)


def tally(lines: Iterable[Line]) -> Tally:
    """The counts over all lines; streams."""
    counts = Tally()
    for line in lines:
        counts.add(line)
    return counts


def _count(counter: Counter[tuple[str, str]], kind: str, text: str) -> None:
    first = (text.strip().splitlines() or ["no reason given"])[0]
    key = (kind, first if len(first) <= 120 else first[:119] + "…")
    if key not in counter and len(counter) >= REASONS:  # keeps memory bounded if every reason names its request
        key = (kind, "other reasons")
    counter[key] += 1
