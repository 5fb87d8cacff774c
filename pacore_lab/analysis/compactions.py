"""How much of its trajectories a run's messages kept, by round, from the lines of results.jsonl."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pacore_lab.analysis.methods import Line


@dataclass(frozen=True, kw_only=True, slots=True)
class Compacted:
    """One round, over all episodes that reached it and did not fail (`pacore_lab.results.kept` defines the counts).

    ratio: characters of all messages over characters of all trajectories. kept: share of the trajectories with an
    answer whose answer survived. majority: mean share of an episode's most frequent answers that survived. Each is None
    if there is nothing to divide by.
    """

    round: int
    episodes: int
    ratio: float | None
    kept: float | None
    majority: float | None


class Compactions:
    """Sums by round, updated as lines are added; `rounds` is empty for a run without messages."""

    def __init__(self) -> None:
        self._sums: defaultdict[int, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, line: Line) -> None:
        if line["error"] is not None:
            return
        for number, passed in enumerate(line.get("compaction", ()), start=1):
            sums = self._sums[number]
            sums["episodes"] += 1
            sums["known"] += passed["majority"] is not None
            for key in ("characters", "passed", "answers", "kept", "majority"):
                sums[key] += passed[key] or 0

    @property
    def rounds(self) -> list[Compacted]:
        if not any(sums["passed"] for sums in self._sums.values()):
            return []
        return [
            Compacted(
                round=number,
                episodes=int(sums["episodes"]),
                ratio=_share(sums["passed"], sums["characters"]),
                kept=_share(sums["kept"], sums["answers"]),
                majority=_share(sums["majority"], sums["known"]),
            )
            for number, sums in sorted(self._sums.items())
        ]


def compactions(lines: Iterable[Line]) -> list[Compacted]:
    """One entry per round, over all lines; streams."""
    found = Compactions()
    for line in lines:
        found.add(line)
    return found.rounds


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
