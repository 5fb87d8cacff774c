"""The answer and the steps that lead to it, taken from the text without a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.errors import require_count
from pacore_lab.interfaces import Grader
from pacore_lab.types import Message, Trajectory

_PIECES = re.compile(r"\n|(?<=[.;]) ")
_RELATION = re.compile(r"[^\s=<>-]\s*(?:[=<>≤≥≠≈≡]|\\(?:leq?|geq?|neq?|lt|gt|approx|equiv)(?![a-zA-Z]))\s*[^\s=<>]")


@dataclass(frozen=True, kw_only=True)
class AnswerSteps:
    """The last `steps` steps of a conclusion, in their order, then "Answer: " and the answer as the grader extracts it.

    A step is a line or a sentence with a relation between two things (=, <, ≤, ≈, \\le ...). A trajectory without
    an answer gives no message; one without steps gives the answer alone.
    """

    steps: int
    grader: Grader

    def __post_init__(self) -> None:
        require_count("strategy.compaction.steps", self.steps)

    def __call__(self, trajectories: Sequence[Trajectory]) -> tuple[Message, ...]:
        answers = [(trajectory, self.grader.extract(trajectory)) for trajectory in trajectories]
        return tuple(
            Message(text="\n".join([*self._steps(t.conclusion), f"Answer: {answer}"]), sources=(t.id,))
            for t, answer in answers
            if answer is not None
        )

    def _steps(self, text: str) -> list[str]:
        return [piece.strip() for piece in _PIECES.split(text) if _RELATION.search(piece)][-self.steps :]
