"""Rows being decoded and the key-value memory they live in: buckets of similar length, so that padding stays small.

A row sits in the smallest bucket that holds it and moves up when it outgrows it (lengths double, so moves are rare).
Attention runs bucket by bucket; everything else in the model sees one batch of all rows, in the order of the buckets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

SHORTEST = 128
"""Tokens in a row of the smallest bucket."""


@dataclass(kw_only=True, eq=False, slots=True)
class Row:
    """One request on its way: its prompt, how to draw, and what has been drawn.

    key: names the prompt; rows of one key share its keys and values.
    order: (priority, arrival); the lowest is admitted first, the highest gives way when memory runs out.
    length: tokens whose keys and values are in memory. It is always one behind the text: the last token is what the
    next step feeds to the model.
    """

    prompt: list[int]
    key: str
    order: tuple[int, int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    logprobs: bool
    top_logprobs: int = 0
    tokens: list[int] = field(default_factory=list)
    logprob: list[float] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    finish_reason: str = ""
    cancelled: bool = False
    cached_tokens: int = 0
    length: int = 0
    bucket: Bucket | None = None
    index: int = 0
    _rng: np.random.Generator = field(init=False)
    _uniforms: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = np.random.Generator(np.random.Philox(key=self.seed % 2**128))

    def __lt__(self, other: Row) -> bool:
        return self.order < other.order

    @property
    def last(self) -> int:
        return self.tokens[-1] if self.tokens else self.prompt[-1]

    def uniform(self) -> float:
        """The row's random number in [0, 1) for its next token: a function of seed and position alone.

        To be asked once for every token of a row, or never.
        """
        place = len(self.tokens) % 64
        if place == 0:
            self._uniforms = self._rng.random(64).tolist()
        return self._uniforms[place]


@dataclass(frozen=True, slots=True)
class Layer:
    """Shape of what one attention layer keeps per token."""

    heads: int
    key_dim: int
    value_dim: int


class Bucket:
    """Rows of up to `length` tokens; per layer [capacity, heads, length, dim] for keys and for values.

    Rows in use are always the first ones: a row that leaves is overwritten by the last.
    """

    def __init__(self, length: int, layers: Sequence[Layer], dtype: torch.dtype, device: torch.device) -> None:
        self.length = length
        self.capacity = 0
        self.rows: list[Row] = []

        # Zeros, not garbage: a masked position still takes part as 0 * value, and 0 * nan is nan.
        def empty(heads: int, dim: int) -> torch.Tensor:
            return torch.zeros(0, heads, length, dim, dtype=dtype, device=device)

        self.keys = [empty(layer.heads, layer.key_dim) for layer in layers]
        self.values = [empty(layer.heads, layer.value_dim) for layer in layers]

    def resize(self, capacity: int) -> None:
        used = len(self.rows)
        for tensors in (self.keys, self.values):
            for i, old in enumerate(tensors):  # layer by layer, so that two copies exist of one layer only
                tensors[i] = old.new_zeros(capacity, *old.shape[1:])
                tensors[i][:used] = old[:used]
        self.capacity = capacity

    def append(self, row: Row) -> None:
        row.bucket, row.index = self, len(self.rows)
        self.rows.append(row)

    def fill(self, index: int, source: Bucket, source_index: int, length: int) -> None:
        """Copy the first `length` tokens of a row of `source` to row `index`."""
        for mine, theirs in ((self.keys, source.keys), (self.values, source.values)):
            for to, of in zip(mine, theirs, strict=True):
                to[index, :, :length] = of[source_index, :, :length]

    def remove(self, row: Row) -> None:
        last = self.rows.pop()
        if last is not row:
            self.fill(row.index, self, last.index, last.length)
            self.rows[row.index] = last
            last.index = row.index
        row.bucket = None


class Memory:
    """All buckets, bounded: capacity times length, summed over the buckets, never exceeds `budget` tokens."""

    def __init__(
        self,
        layers: Sequence[Layer],
        dtype: torch.dtype,
        device: torch.device,
        *,
        max_rows: int,
        longest: int,
        budget: int,
    ) -> None:
        self.max_rows, self.budget = max_rows, budget
        lengths = [SHORTEST]
        while lengths[-1] < longest:
            lengths.append(2 * lengths[-1])
        lengths[-1] = min(lengths[-1], longest)
        self.buckets = [Bucket(length, layers, dtype, device) for length in lengths]

    def __len__(self) -> int:
        return sum(len(bucket.rows) for bucket in self.buckets)

    def __iter__(self) -> Iterator[Row]:
        """The rows in batch order."""
        return (row for bucket in self.buckets for row in bucket.rows)

    def bucket_for(self, tokens: int) -> Bucket:
        return next(bucket for bucket in self.buckets if bucket.length >= tokens)

    def place(self, row: Row, tokens: int) -> bool:
        """Give `row` room for `tokens` tokens; False where the memory is spoken for."""
        bucket = self.bucket_for(tokens)
        if not self._reserve(bucket):
            return False
        bucket.append(row)
        return True

    def move_up(self, row: Row) -> bool:
        """Move a row that filled its bucket to the next longer one; False where the memory is spoken for."""
        old = row.bucket
        assert old is not None
        new = self.bucket_for(row.length + 1)
        if not self._reserve(new):
            return False
        new.fill(len(new.rows), old, row.index, row.length)
        old.remove(row)
        new.append(row)
        return True

    def _reserve(self, bucket: Bucket) -> bool:
        need = len(bucket.rows) + 1
        if need <= bucket.capacity:
            return True
        others = [other for other in self.buckets if other is not bucket]
        wanted = min(self.max_rows, max(need, 2 * bucket.capacity))
        if self._fits(others, bucket, wanted):
            bucket.resize(wanted)
            return True
        for other in others:
            if other.capacity > len(other.rows):
                other.resize(len(other.rows))
        if self._fits(others, bucket, need):
            bucket.resize(need)
            return True
        return False

    def _fits(self, others: list[Bucket], bucket: Bucket, capacity: int) -> bool:
        return sum(other.capacity * other.length for other in others) + capacity * bucket.length <= self.budget
