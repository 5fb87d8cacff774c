"""Confidences of the transformers backend, against a plain forward pass; on random weights."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from backends._hf_draw import confidences, draw
from backends.vllm import VLLM
from pacore_lab.errors import BackendError
from pacore_lab.interfaces import Chunk
from pacore_lab.types import Model
from tests.tiny_hf import Running, backend, folder, net, plain_greedy, rows, tokenizer

SCORED: dict[str, Any] = {"logprobs": True, "top_logprobs": 3}


async def test_they_are_those_of_a_full_forward(folder: Path, net: Any, tokenizer: Any) -> None:
    """One for each token, the end of the turn included, whoever else is in the batch and asks for fewer or more."""
    size = len(tokenizer)
    async with Running(backend(folder)) as ask_hf:
        assert ask_hf.backend.capabilities.logprobs == "topk"
        assert ask_hf.backend.capabilities.most_top_logprobs == size
        tops = (1, 7, size, 0)
        calls = [ask_hf("hello", temperature=0, max_tokens=90, logprobs=True, top_logprobs=top) for top in tops]
        got = await asyncio.gather(*calls)
    out, prompt = plain_greedy(net, tokenizer, "hello", 90)
    with torch.inference_mode():
        logprobs = net(out).logits.double().log_softmax(-1)[0, prompt - 1 : -1]
    for top, done in zip(tops[:3], got, strict=False):
        assert done.confidences is not None
        assert len(done.confidences) == done.generated_tokens
        assert list(done.confidences) == pytest.approx((-logprobs.topk(top).values.mean(-1)).tolist(), abs=2e-4)
    assert got[3].confidences is None


async def test_asking_for_them_changes_no_draw(folder: Path) -> None:
    async with Running(backend(folder)) as ask_hf:
        plain = await ask_hf("hello", seed=3, temperature=0.8, top_p=0.9, max_tokens=120)
        scored = await ask_hf("hello", seed=3, temperature=0.8, top_p=0.9, max_tokens=120, **SCORED)
    assert scored.content == plain.content
    assert (plain.confidences, len(scored.confidences or ())) == (None, scored.generated_tokens)


def test_who_does_not_ask_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search for the likeliest of 150 thousand tokens in every step, for nobody."""
    logits = torch.randn(3, 50, generator=torch.manual_seed(0))
    some = [*rows(2, logprobs=True), *rows(1, logprobs=True, top_logprobs=5)]
    assert list(confidences(logits, some)) == [2]
    monkeypatch.setattr(torch.Tensor, "topk", None)
    assert confidences(logits, rows(3, logprobs=True)) == {}
    draw(logits, some)


async def test_chunks_carry_their_own(folder: Path) -> None:
    """A strategy that aborts on them sees those of each piece, and after an abort has those of what there was."""
    chunks: list[Chunk] = []
    async with Running(backend(folder)) as ask_hf:
        done = await ask_hf("hello", seed=3, max_tokens=100, on_chunk=chunks.append, **SCORED)
        assert [len(chunk.confidences) for chunk in chunks] == [chunk.tokens for chunk in chunks]
        assert tuple(number for chunk in chunks for number in chunk.confidences) == done.confidences
        plain: list[Chunk] = []
        await ask_hf("hello", seed=3, max_tokens=20, on_chunk=plain.append)
        assert {chunk.confidences for chunk in plain} == {()}


async def test_more_than_the_vocabulary_is_refused_at_the_start(folder: Path, tokenizer: Any) -> None:
    model = Model(name="tiny", path=str(folder), logprobs=True, top_logprobs=len(tokenizer) + 1)
    for engine in (backend(folder, logprobs=True, top_logprobs=len(tokenizer) + 1), VLLM(model=model)):
        with pytest.raises(BackendError, match=rf"model\.top_logprobs is {len(tokenizer) + 1}, but .* lower it"):
            await engine.start()
        await engine.close()
