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
class Drawn:
    """By their place among those asked for; a Mixture-of-Agents shows its proposers so."""

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        return list(trajectories)


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """A shuffle of its own for each round, repeatable for a given seed."""

    seed: int = 0

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        ordered = sorted(trajectories, key=lambda trajectory: trajectory.id)
        random.Random(f"{self.seed}:{[trajectory.id for trajectory in ordered]}").shuffle(ordered)
        return ordered


@dataclass(frozen=True, kw_only=True)
class ByWeight:
    """By how sure the model was of them; empty and failed trajectories, which give no message, come last.

    by: weighs trajectories (`strategies.weights`). Equal ones keep the published order.
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
    """Trajectories with one answer next to one another, by the number of them; those without an answer come last.

    Within a class, and among classes of one size by their first trajectories, the published order stays.
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

    Against the published order this shows what the place of the majority does to the next round. Where several answers
    are the most frequent there is no majority, and the published order stays.
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
