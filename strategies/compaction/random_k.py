"""A random subset of the messages: fewer references for the same number of samples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.errors import require_count, require_part
from pacore_lab.interfaces import Compaction
from pacore_lab.types import Message, Trajectory


@dataclass(frozen=True, kw_only=True)
class RandomK:
    """k random messages of `of`, in their order; all of them if there are fewer."""

    k: int
    of: Compaction
    seed: int = 0

    def __post_init__(self) -> None:
        require_count("strategy.compaction.k", self.k)
        require_part("strategy.compaction.of", self.of)

    def __call__(self, trajectories: Sequence[Trajectory]) -> tuple[Message, ...]:
        messages = self.of(trajectories)
        draw = random.Random(f"{self.seed}:{sorted(t.id for t in trajectories)}")
        kept = draw.sample(range(len(messages)), min(self.k, len(messages)))
        return tuple(messages[i] for i in sorted(kept))
