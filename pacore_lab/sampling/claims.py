"""Trajectories that the episodes of a run share out among themselves (`Sampler.claim`)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Key: TypeAlias = tuple[str, int]
"""(problem id, repeat)."""


class Claims:
    """Waits until every episode has claimed or ended, then divides. episodes: all of a run, finished ones included."""

    def __init__(self, episodes: Iterable[Key]) -> None:
        self._open = dict.fromkeys(episodes)
        self._claims: dict[Key, tuple[float, int]] = {}
        self._shares: asyncio.Future[dict[Key, int]] = asyncio.get_running_loop().create_future()

    def made(self, key: Key, weight: float, trajectories: int) -> None:
        """An episode's claim; also one that an earlier, interrupted run has recorded."""
        self._claims[key] = (weight, trajectories)
        self.end(key)

    def end(self, key: Key) -> None:
        """It claims nothing more."""
        self._open.pop(key, None)
        if not self._open and not self._shares.done():
            keys = sorted(self._claims)  # not as they came: the same shares each time
            total = sum(self._claims[key][1] for key in keys)
            parts = shares([self._claims[key][0] for key in keys], total)
            self._shares.set_result(dict(zip(keys, parts, strict=True)))

    async def claim(self, key: Key, weight: float, trajectories: int) -> int:
        """Raises ValueError for a weight that is negative or not finite, and for a second claim."""
        if not (math.isfinite(weight) and weight >= 0) or trajectories < 0:
            raise ValueError(f"a claim of {trajectories} trajectories weighs {weight}; both must be 0 or more")
        if key in self._claims:
            raise ValueError("an episode claims once")
        self.made(key, weight, trajectories)
        return (await asyncio.shield(self._shares))[key]


def shares(weights: Sequence[float], total: int) -> list[int]:
    """Whole parts of `total` in proportion to the weights, by largest remainders; all weights 0: equal parts."""
    whole = math.fsum(weights)
    parts = [total * weight / whole if whole else total / len(weights) for weight in weights]
    floors = [math.floor(part) for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda place: (floors[place] - parts[place], place))
    for place in by_remainder[: total - sum(floors)]:
        floors[place] += 1
    return floors
