"""Which of a round's messages each trajectory of the next round is shown."""

from __future__ import annotations

import random
from dataclasses import dataclass

from pacore_lab.errors import require_count
from pacore_lab.types import Message


@dataclass(frozen=True, kw_only=True)
class All:
    """Published: every trajectory is shown all messages."""

    def __call__(self, messages: tuple[Message, ...], width: int) -> list[tuple[Message, ...]]:
        return [messages] * width


@dataclass(frozen=True, kw_only=True)
class RandomSubset:
    """k random messages for each trajectory (RSA, arXiv 2509.26626; PDR's random-k, 2510.01123).

    The draw depends on the messages' sources, the seed and the trajectory's position. Messages keep their order. If
    there are at most k, all are shown.
    """

    k: int
    seed: int = 0

    def __post_init__(self) -> None:
        require_count("strategy.views.k", self.k)

    def __call__(self, messages: tuple[Message, ...], width: int) -> list[tuple[Message, ...]]:
        if len(messages) <= self.k:
            return [messages] * width
        draw = random.Random(f"{self.seed}:{[message.sources for message in messages]}")
        places = [sorted(draw.sample(range(len(messages)), self.k)) for _ in range(width)]
        return [tuple(messages[place] for place in chosen) for chosen in places]
