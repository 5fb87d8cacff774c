"""What a round disagrees on: every answer, how many trajectories gave it, and a text for each of the most frequent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.errors import require_count, require_part
from pacore_lab.interfaces import Compaction
from pacore_lab.types import Message, Trajectory


@dataclass(frozen=True, kw_only=True)
class DisagreementDigest:
    """One message: every answer with its count, the most frequent first, and a text for each of the first `shown`.

    The spelling of an answer is its first trajectory's, and the text is that trajectory's message of `of`; equal counts
    keep their order. If all answers agree, one text is shown. The sources are all trajectories with an answer; if there
    are none, there is no message.
    """

    shown: int
    of: Compaction
    needs = frozenset({"answers"})

    def __post_init__(self) -> None:
        require_count("strategy.compaction.shown", self.shown)
        require_part("strategy.compaction.of", self.of)

    def __call__(self, trajectories: Sequence[Trajectory]) -> tuple[Message, ...]:
        found: defaultdict[int, list[Trajectory]] = defaultdict(list)
        for trajectory in trajectories:
            if trajectory.answer_class is not None:
                found[trajectory.answer_class].append(trajectory)
        if not found:
            return ()
        classes = sorted(found.values(), key=lambda members: -len(members))
        answered = sum(map(len, classes))
        silent = sum(trajectory.answer_class is None and bool(trajectory.content) for trajectory in trajectories)
        rest = f" ({_responses(silent)} more gave none)" if silent else ""
        head = f"Different answers in {_responses(answered)}: {len(classes)}{rest}."
        parts = [self._part(members) for members in classes[: self.shown]]
        parts += [_said(members) for members in classes[self.shown :]]
        sources = tuple(trajectory.id for trajectory in trajectories if trajectory.answer_class is not None)
        return (Message(text="\n\n".join([head, *parts]), sources=sources),)

    def _part(self, members: Sequence[Trajectory]) -> str:
        texts = [message.text for message in self.of(members[:1])]
        return "\n".join([_said(members), *(f"One of them:\n{text.strip()}" for text in texts)])


def _said(members: Sequence[Trajectory]) -> str:
    return f"Answer {members[0].answer}, given by {_responses(len(members))}."


def _responses(number: int) -> str:
    return f"{number} response" if number == 1 else f"{number} responses"
