"""The messages of the best trajectories (PDR's top-k workspace, arXiv 2510.01123; ranking by confidence is ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.errors import require_count, require_part
from pacore_lab.interfaces import Compaction
from pacore_lab.types import Message, Trajectory
from strategies.majority_vote import Weight


@dataclass(frozen=True, kw_only=True)
class TopK:
    """The k messages of `of` with the largest weight, in their order; all of them if there are fewer.

    by: weighs a trajectory (`strategies.weights`); a message made from several has the largest of their weights. On a
    tie the first messages are kept.
    """

    k: int
    of: Compaction
    by: Weight

    def __post_init__(self) -> None:
        require_count("strategy.compaction.k", self.k)
        require_part("strategy.compaction.of", self.of)
        require_part("strategy.compaction.by", self.by)

    def __call__(self, trajectories: Sequence[Trajectory]) -> tuple[Message, ...]:
        messages, known = self.of(trajectories), {trajectory.id: trajectory for trajectory in trajectories}
        weights = [max(self.by(known[source]) for source in message.sources) for message in messages]
        best = sorted(range(len(messages)), key=lambda place: -weights[place])[: self.k]
        return tuple(messages[place] for place in sorted(best))
