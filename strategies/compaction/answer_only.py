"""Only the extracted answer: how much of coordination is voting?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.interfaces import Grader
from pacore_lab.types import Message, Trajectory


@dataclass(frozen=True, kw_only=True)
class AnswerOnly:
    """The answer as the grader extracts it; trajectories without one give no message."""

    grader: Grader

    def __call__(self, trajectories: Sequence[Trajectory]) -> tuple[Message, ...]:
        answers = [(trajectory, self.grader.extract(trajectory)) for trajectory in trajectories]
        return tuple(Message(text=answer, sources=(t.id,)) for t, answer in answers if answer is not None)
