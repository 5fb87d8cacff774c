"""The tail of each trajectory, thinking included (in Markovian RSA, arXiv 2605.05365, the tail of the reasoning)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pacore_lab.errors import require_count
from pacore_lab.types import Message, Trajectory
from strategies.compaction.whole import whole


@dataclass(frozen=True, kw_only=True)
class LastTokens:
    """The last n tokens, counted by `tokenizer` (a folder or hub id). Raises ValueError if it cannot be loaded."""

    n: int
    tokenizer: str | None

    def __post_init__(self) -> None:
        require_count("strategy.compaction.n", self.n)
        if self.tokenizer is None:
            raise ValueError(
                "strategy.compaction.tokenizer is not set and the model has no path; name the folder or hub id of its "
                "tokenizer, since last_tokens counts tokens"
            )
        _ = self._load  # a wrong path is refused before the run starts

    @cached_property
    def _load(self) -> Any:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.tokenizer)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"strategy.compaction.tokenizer={self.tokenizer} cannot be loaded: {reason}") from None

    def __call__(self, trajectories: Sequence[Trajectory]) -> tuple[Message, ...]:
        return tuple(Message(text=self._tail(whole(t)), sources=(t.id,)) for t in trajectories if t.content)

    def _tail(self, text: str) -> str:
        encoding = self._load(text, add_special_tokens=False, return_offsets_mapping=True)
        starts = [start for start, _ in encoding["offset_mapping"]]
        return text if len(starts) <= self.n else text[starts[-self.n] :]
