"""One message per answer: repetitions cost context and say little more than how often the answer was given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pacore_lab.errors import require_flag, require_part
from pacore_lab.interfaces import Compaction
from pacore_lab.types import Message, Trajectory


@dataclass(frozen=True, kw_only=True)
class Dedupe:
    """Keeps the first message of `of` in each class of answers; its sources are all trajectories of that class.

    The number of sources is thus the count that `strategy/prompt=with_counts` shows. keep_invalid: whether to keep the
    messages of trajectories without an answer.
    """

    of: Compaction
    keep_invalid: bool
    needs = frozenset({"answers"})

    def __post_init__(self) -> None:
        require_part("strategy.compaction.of", self.of)
        require_flag("strategy.compaction.keep_invalid", self.keep_invalid)

    def __call__(self, trajectories: Sequence[Trajectory]) -> tuple[Message, ...]:
        classes = {trajectory.id: trajectory.answer_class for trajectory in trajectories}
        members: defaultdict[int | None, list[str]] = defaultdict(list)
        for name, answer_class in classes.items():
            members[answer_class].append(name)
        kept: dict[int | str, Message] = {}
        for message in self.of(trajectories):
            answer_class = classes[message.sources[0]]
            if answer_class is not None:
                kept.setdefault(answer_class, replace(message, sources=tuple(members[answer_class])))
            elif self.keep_invalid:
                kept[message.sources[0]] = message
        return tuple(kept.values())
