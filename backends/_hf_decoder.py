"""Continuous batching over a transformers model: rows come and go between steps, each step is one token for all.

A prompt's last token is not prefilled but fed to the row's first step, so that tokens are drawn in one place only and
the samples of one prompt share a single prefill: the others copy its keys and values.
"""

from __future__ import annotations

import heapq
from typing import Any

import torch

from backends._hf_attention import Decode, Prefill
from backends._hf_draw import confidences, draw
from backends._hf_rows import Memory, Row

PREFILL_TOKENS = 8192
"""Most tokens, padding included, in one forward pass over prompts (one longer prompt goes alone)."""


class Decoder:
    """`submit` rows, then `step` until they are finished. Not thread-safe: one thread owns it.

    A row that memory runs out for gives way to older ones and later continues where it was, from its own text and its
    own random numbers.
    """

    def __init__(self, model: Any, eos: frozenset[int], memory: Memory) -> None:
        self.model, self.eos, self.memory = model, eos, memory
        self.waiting: list[Row] = []

    @property
    def idle(self) -> bool:
        return not self.waiting and not len(self.memory)

    def submit(self, row: Row) -> None:
        heapq.heappush(self.waiting, row)

    @torch.inference_mode()
    def drop_cancelled(self) -> None:
        self.waiting = [row for row in self.waiting if not row.cancelled]
        heapq.heapify(self.waiting)
        for row in [row for row in self.memory if row.cancelled]:
            self._release(row)

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """One more token for every admitted row. Returns these rows; those with a finish reason are out of memory."""
        self._move_up()
        self._admit()
        rows = list(self.memory)
        if not rows:
            return []
        device = self.model.device
        logits = self.model(
            input_ids=torch.tensor([[row.last] for row in rows], device=device),
            position_ids=torch.tensor([[row.length] for row in rows], device=device),
            use_cache=False,
            plan=Decode(self.memory, self.model.dtype, device),
        ).logits[:, -1]
        tokens, logprobs = draw(logits, rows)
        sure = confidences(logits, rows)
        for i, row in enumerate(rows):
            row.tokens.append(tokens[i])
            row.length += 1
            if logprobs is not None and row.logprobs:
                row.logprob.append(logprobs[i])
            if i in sure:
                row.confidences.append(sure[i])
            if tokens[i] in self.eos:
                row.finish_reason = "stop"
            elif len(row.tokens) >= row.max_tokens:
                row.finish_reason = "length"
        for row in rows:
            if row.finish_reason:
                self._release(row)
        return rows

    def _release(self, row: Row) -> None:
        assert row.bucket is not None
        row.bucket.remove(row)
        row.length = 0

    def _move_up(self) -> None:
        for row in sorted(row for row in self.memory if row.bucket and row.length == row.bucket.length):
            while row.bucket is not None and not self.memory.move_up(row):
                last = max(self.memory)  # may be the row itself: it then starts again in the longer bucket
                self._release(last)
                self.submit(last)

    def _admit(self) -> None:
        """Move waiting rows into memory, in order, while there is room."""
        known = {row.key: row for row in self.memory}
        fresh: list[Row] = []
        copies: list[Row] = []
        while self.waiting and len(self.memory) < self.memory.max_rows:
            row = self.waiting[0]
            if not self.memory.place(row, len(row.prompt) + len(row.tokens)):
                break
            heapq.heappop(self.waiting)
            if not row.tokens and row.key in known:
                copies.append(row)
            else:
                known.setdefault(row.key, row)
                fresh.append(row)
        self._prefill(fresh)
        for row in copies:
            source = known[row.key]
            assert row.bucket is not None
            assert source.bucket is not None
            row.length = row.cached_tokens = len(row.prompt) - 1
            row.bucket.fill(row.index, source.bucket, source.index, row.length)

    def _prefill(self, rows: list[Row]) -> None:
        """Prompts of like length together, longest first."""
        for row in rows:
            row.length = len(row.prompt) + len(row.tokens) - 1
        rows = sorted((row for row in rows if row.length), key=lambda row: row.length, reverse=True)
        while rows:
            bucket, longest = rows[0].bucket, rows[0].length
            assert bucket is not None
            most = max(1, PREFILL_TOKENS // longest)
            batch = [row for row in rows[:most] if row.bucket is bucket]
            rows = rows[len(batch) :]
            device = self.model.device
            ids = torch.zeros(len(batch), longest, dtype=torch.long)
            for i, row in enumerate(batch):
                ids[i, : row.length] = torch.tensor((row.prompt + row.tokens)[:-1])
            self.model.base_model(
                input_ids=ids.to(device),
                position_ids=torch.arange(longest, device=device)[None],
                use_cache=False,
                plan=Prefill(bucket, torch.tensor([row.index for row in batch], device=device)),
            )
