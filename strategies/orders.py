"""The order in which trajectories become references."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.errors import require_flag, require_part
from pacore_lab.types import Trajectory
from pacore_lab.votes import winners
from strategies.majority_vote import Weight


@dataclass(frozen=True, kw_only=True)
class Published:
    """By length of the whole content in characters, then `random.Random(42).shuffle`, as in the published client.

    Trajectories of equal length stay in sample order, so that an interrupted run builds the same prompts as an
    uninterrupted one; in the client they stay in order of arrival.
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
class Drawn:
    """In draw order, as a Mixture-of-Agents shows its proposers."""

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        return list(trajectories)


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """A different shuffle for each round, repeatable for a given seed."""

    seed: int = 0

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        ordered = sorted(trajectories, key=lambda trajectory: trajectory.id)
        random.Random(f"{self.seed}:{[trajectory.id for trajectory in ordered]}").shuffle(ordered)
        return ordered


@dataclass(frozen=True, kw_only=True)
class ByWeight:
    """Sorted by weight; empty and failed trajectories, which give no message, come last.

    by: weighs a trajectory (`strategies.weights`). Trajectories of equal weight keep the published order.
    """

    by: Weight
    largest_first: bool

    def __post_init__(self) -> None:
        require_part("strategy.order.by", self.by)
        require_flag("strategy.order.largest_first", self.largest_first)

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        ordered = Published()(trajectories)
        usable = sorted(filter(_usable, ordered), key=self.by, reverse=self.largest_first)
        return [*usable, *(trajectory for trajectory in ordered if not _usable(trajectory))]


@dataclass(frozen=True, kw_only=True)
class ByClassSize:
    """Grouped by answer, and the groups sorted by size; trajectories without an answer come last.

    Within a group the published order stays. Groups of equal size follow it by their first trajectories.
    """

    largest_first: bool
    needs = frozenset({"answers"})

    def __post_init__(self) -> None:
        require_flag("strategy.order.largest_first", self.largest_first)

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        ordered = Published()(trajectories)
        sizes = Counter(trajectory.answer_class for trajectory in ordered)
        named = [name for name in sizes if name is not None]
        named.sort(key=lambda name: -sizes[name] if self.largest_first else sizes[name])
        ranks = {name: rank for rank, name in enumerate([*named, None])}
        return sorted(ordered, key=lambda trajectory: ranks[trajectory.answer_class])


@dataclass(frozen=True, kw_only=True)
class Majority:
    """The trajectories with the most frequent answer first, or last; all others keep the published order.

    Compared with the published order, this shows how the majority's position affects the next round. If several answers
    are equally frequent there is no majority, and the published order stays.
    """

    first: bool
    needs = frozenset({"answers"})

    def __post_init__(self) -> None:
        require_flag("strategy.order.first", self.first)

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        ordered = Published()(trajectories)
        best = winners([trajectory.answer_class for trajectory in ordered])
        if len(best) != 1:
            return ordered
        majority = ordered[best[0]].answer_class
        return sorted(ordered, key=lambda trajectory: (trajectory.answer_class == majority) != self.first)


def _usable(trajectory: Trajectory) -> bool:
    return trajectory.content != ""
