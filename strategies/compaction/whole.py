"""The published compaction, and no compaction at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.types import Message, Trajectory


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """Published: the text after the last `</think>`, or all of it without one; empty responses are left out."""

    def __call__(self, trajectories: Sequence[Trajectory]) -> tuple[Message, ...]:
        return tuple(Message(text=t.conclusion, sources=(t.id,)) for t in trajectories if t.content)


@dataclass(frozen=True, kw_only=True)
class Full:
    """No compaction: whole trajectories are fed forward (paper, Figure 4 right)."""

    def __call__(self, trajectories: Sequence[Trajectory]) -> tuple[Message, ...]:
        return tuple(Message(text=whole(t), sources=(t.id,)) for t in trajectories if t.content)


def whole(trajectory: Trajectory) -> str:
    """Thinking and conclusion, even if the server split them."""
    reasoning = trajectory.completion.reasoning
    return f"<think>\n{reasoning}\n</think>\n\n{trajectory.content}" if reasoning else trajectory.content
