"""The pot of trajectories that the episodes of a run divide among themselves (`Sampler.claim`)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Key: TypeAlias = tuple[str, int]
"""(problem id, repeat)."""


class Claims:
    """Waits until every episode has claimed or ended, then divides. episodes: all of the run, even finished ones."""

    def __init__(self, episodes: Iterable[Key]) -> None:
        self._open = dict.fromkeys(episodes)
        self._claims: dict[Key, tuple[float, int]] = {}
        self._shares: asyncio.Future[dict[Key, int]] = asyncio.get_running_loop().create_future()

    def made(self, key: Key, weight: float, trajectories: int) -> None:
        """Enter an episode's claim, made now or read from the results of an earlier, interrupted run."""
        self._claims[key] = (weight, trajectories)
        self.end(key)

    def end(self, key: Key) -> None:
        """Note that the episode makes no further claim."""
        self._open.pop(key, None)
        if not self._open and not self._shares.done():
            keys = sorted(self._claims)  # not in arrival order, so that the shares are always the same
            total = sum(self._claims[key][1] for key in keys)
            parts = shares([self._claims[key][0] for key in keys], total)
            self._shares.set_result(dict(zip(keys, parts, strict=True)))

    async def claim(self, key: Key, weight: float, trajectories: int) -> int:
        """Raises ValueError for a negative or non-finite weight, negative `trajectories`, or a second claim."""
        if not (math.isfinite(weight) and weight >= 0) or trajectories < 0:
            raise ValueError(f"a claim of {trajectories} trajectories weighs {weight}; both must be 0 or more")
        if key in self._claims:
            raise ValueError("an episode claims once")
        self.made(key, weight, trajectories)
        return (await asyncio.shield(self._shares))[key]


def shares(weights: Sequence[float], total: int) -> list[int]:
    """Whole parts of `total`, proportional to the weights by largest remainders; equal parts if all weights are 0."""
    whole = math.fsum(weights)
    parts = [total * weight / whole if whole else total / len(weights) for weight in weights]
    floors = [math.floor(part) for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda place: (floors[place] - parts[place], place))
    for place in by_remainder[: total - sum(floors)]:
        floors[place] += 1
    return floors
