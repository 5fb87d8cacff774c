"""The order in which trajectories become references."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.types import Trajectory


@dataclass(frozen=True, kw_only=True)
class Published:
    """By length of the whole content in characters, then `random.Random(42).shuffle`, as the published client does.

    Equally long ones keep the order of their sample indices (the client leaves that to the order of arrival), so
    that an interrupted run builds the same prompts as an uninterrupted one.
    """

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        ordered = sorted(trajectories, key=lambda trajectory: len(trajectory.content))
        random.Random(42).shuffle(ordered)
        return ordered


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """First finished, first shown."""

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        return sorted(trajectories, key=lambda trajectory: trajectory.arrival)


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """A shuffle of its own for each round, repeatable for a given seed."""

    seed: int = 0

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        ordered = sorted(trajectories, key=lambda trajectory: trajectory.id)
        random.Random(f"{self.seed}:{[trajectory.id for trajectory in ordered]}").shuffle(ordered)
        return ordered
