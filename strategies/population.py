"""A population of constant size that each loop replaces, as in recursive self-aggregation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.errors import require_count
from pacore_lab.interfaces import Plan
from pacore_lab.types import Round


@dataclass(frozen=True, kw_only=True)
class Population:
    """`loops` rounds of `width` trajectories, the first included. Without a last round of one, PaCoRe takes a vote.

    RSA (arXiv 2509.26626) has N = 16 and T = 10 and ends with a vote or a random member of the population.
    """

    width: int
    loops: int
    needs = frozenset({"answers"})

    def __post_init__(self) -> None:
        require_count("strategy.schedule.width", self.width)
        require_count("strategy.schedule.loops", self.loops)

    def __call__(self, rounds: Sequence[Round]) -> Plan | None:
        return Plan(width=self.width) if len(rounds) < self.loops else None
