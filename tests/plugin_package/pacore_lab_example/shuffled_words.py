"""A control for what the next round takes from its references."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.errors import require_count
from pacore_lab.types import Message, Trajectory


@dataclass(frozen=True, kw_only=True)
class ShuffledWords:
    """Conclusions with their words out of order: a model that loses nothing by it only looks for words.

    After the ablations of context by O'Connor and Andreas (arXiv 2106.08367), who shuffle words within trigrams,
    sentences and whole contexts. span: so many neighbouring words are shuffled among themselves; None: all of them.
    """

    span: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.span is not None:
            require_count("strategy.compaction.span", self.span, least=2)

    def __call__(self, trajectories: Sequence[Trajectory]) -> tuple[Message, ...]:
        return tuple(Message(text=self._shuffled(t), sources=(t.id,)) for t in trajectories if t.content)

    def _shuffled(self, trajectory: Trajectory) -> str:
        words = trajectory.conclusion.split()
        span = self.span or max(len(words), 1)
        draw = random.Random(f"{self.seed}:{trajectory.id}")
        spans = [words[start : start + span] for start in range(0, len(words), span)]
        return " ".join(word for some in spans for word in draw.sample(some, len(some)))
