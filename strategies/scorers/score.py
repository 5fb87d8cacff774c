"""The seam between Best-of-N and its scorers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pacore_lab.interfaces import Sampler
from pacore_lab.types import Problem, Trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """value: finite, 0 or more, larger is better; None if there is no score.

    reason: why there is no score, or what it lacks; a short constant text, so that reasons can be counted.
    """

    value: float | None
    reason: str = ""


class Scorer(Protocol):
    async def __call__(self, problem: Problem, trajectories: Sequence[Trajectory], sampler: Sampler) -> list[Score]:
        """One score per trajectory. None of the trajectories has failed, and all have a conclusion."""
        ...
