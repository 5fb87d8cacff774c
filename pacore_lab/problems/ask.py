"""A single question from the command line."""

from __future__ import annotations

from dataclasses import dataclass

from pacore_lab.types import ChatMessage, Problem


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One problem, id "ask". answer: its ground truth; None runs it ungraded.

    A number counts as its text, because a command line turns `problems.answer=42` into a number.
    Raises ValueError for an empty question.
    """

    question: str
    answer: str | int | float | None = None

    def __post_init__(self) -> None:
        if self.question is None or not str(self.question).strip():
            raise ValueError("problems.question is empty; ask something, e.g. 'problems.question=\"What is 17 * 24?\"'")

    def load(self) -> list[Problem]:
        answer = None if self.answer is None or self.answer == "" else str(self.answer)
        return [Problem(id="ask", messages=(ChatMessage(role="user", content=str(self.question)),), answer=answer)]
