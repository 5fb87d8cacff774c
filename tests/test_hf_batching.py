"""Rows of the transformers backend share batches and memory without touching one another."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM

from backends._hf_draw import draw
from backends._hf_rows import Row
from pacore_lab.errors import RequestError
from tests.tiny_hf import CONTEXT, SHAPE, Running, backend, folder, mixed, net, plain_greedy, rows, ship, tokenizer
from tests.waiting import until


@pytest.mark.parametrize("family", ["qwen3", "llama"])
async def test_greedy_equals_generate_one_by_one(
    family: str, folder: Path, tmp_path: Path, tokenizer: Any, net: Any
) -> None:
    """Guards cache placement: rows that join, move, swap places and share prompts must not see each other's text."""
    if family == "llama":
        torch.manual_seed(1)
        net = LlamaForCausalLM(
            LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **SHAPE)
        ).eval()
        folder = ship(tmp_path, tokenizer, net)
    asked = mixed(16 if family == "qwen3" else 6)
    async with Running(backend(folder, max_batch=6)) as ask:
        got = await asyncio.gather(*(ask(text, max_tokens=n, temperature=0) for text, n in asked))
    for completion, (text, n) in zip(got, asked, strict=True):
        out, prompt = plain_greedy(net, tokenizer, text, n)
        expected = tokenizer.decode(out[0, prompt:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert completion.content == expected
        assert completion.generated_tokens == out.shape[1] - prompt
        assert completion.prompt_tokens == prompt
    assert sum(c.cached_tokens > 0 for c in got) > 0


async def test_same_seed_same_text_whatever_else_is_running(folder: Path) -> None:
    asked = mixed(12, seed=1)
    async with Running(backend(folder)) as ask:
        alone = [await ask(text, seed=i, max_tokens=n) for i, (text, n) in enumerate(asked)]
        others = [asyncio.create_task(ask(text, seed=100 + i, top_p=0.9)) for i, (text, _) in enumerate(asked)]
        crowd = await asyncio.gather(*(ask(text, seed=i, max_tokens=n) for i, (text, n) in enumerate(asked)))
        await asyncio.gather(*others)
        again = await ask(asked[0][0], seed=7, max_tokens=60)
    assert [c.content for c in crowd] == [c.content for c in alone]
    assert len({c.content for c in alone}) == len(asked)
    assert again.content[:20] != alone[0].content[:20]


async def test_rows_give_way_when_memory_runs_out_and_continue_where_they_were(folder: Path) -> None:
    """Guards preemption: a budget of two long rows must change the order of work, never the text."""
    asked = mixed(10, seed=2)
    results = []
    for cache_tokens in (None, 2 * CONTEXT):
        async with Running(backend(folder, cache_tokens=cache_tokens)) as ask:
            tasks = [ask(text, seed=i, max_tokens=n) for i, (text, n) in enumerate(asked)]
            results.append([c.content for c in await asyncio.gather(*tasks)])
    assert results[0] == results[1]


async def test_a_request_larger_than_the_memory_is_refused(folder: Path) -> None:
    async with Running(backend(folder, cache_tokens=200)) as ask:
        with pytest.raises(RequestError, match=r"backend\.cache_tokens=200"):
            await ask("x")
        assert (await ask("x", max_tokens=5)).generated_tokens <= 5


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.5, 0.25, 0.15, 0.1, 0.0]),
        ({"temperature": 0.5}, [0.5**2, 0.25**2, 0.15**2, 0.1**2, 0.0]),
        ({"top_p": 0.7}, [0.5, 0.25, 0.0, 0.0, 0.0]),
        ({"top_p": 0.76}, [0.5, 0.25, 0.15, 0.0, 0.0]),
        ({"temperature": 0}, [1.0, 0.0, 0.0, 0.0, 0.0]),
        ({"temperature": 1e-40}, [1.0, 0.0, 0.0, 0.0, 0.0]),
        ({"top_p": 1e-9}, [1.0, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_draws_follow_the_distribution(settings: dict[str, Any], expected: list[float]) -> None:
    n = 5_000
    logits = torch.tensor([[0.1, 0.0, 0.5, 0.15, 0.25]]).log().repeat(n, 1)
    tokens, _ = draw(logits, rows(n, **settings))
    seen = Counter(tokens)
    order = [2, 4, 3, 0, 1]  # tokens by descending probability
    total = sum(expected)
    assert all(seen[token] == 0 for token, p in zip(order, expected, strict=True) if p == 0)
    likely = [(seen[token], n * p / total) for token, p in zip(order, expected, strict=True) if p > 0]
    if len(likely) > 1:
        assert chisquare(*zip(*likely, strict=True)).pvalue > 1e-4


def test_logits_that_are_not_numbers_are_an_error_not_a_token() -> None:
    with pytest.raises(FloatingPointError, match="nan"):
        draw(torch.full((2, 5), float("nan")), rows(2))


def test_a_row_draws_the_same_in_any_company() -> None:
    logits = torch.randn(64, 300, generator=torch.Generator().manual_seed(0))
    together, _ = draw(logits, [replace_row(row, i) for i, row in enumerate(rows(64))])
    alone = [draw(logits[i : i + 1], [replace_row(row, i)])[0][0] for i, row in enumerate(rows(64))]
    assert together == alone


def replace_row(row: Row, i: int) -> Row:
    row.top_p, row.temperature = (1.0, 0.8, 0.5)[i % 3], (1.0, 0.0, 0.7)[i % 3]
    return row


async def test_a_short_answer_does_not_wait_for_a_long_one(folder: Path) -> None:
    async with Running(backend(folder)) as ask:
        long = asyncio.create_task(ask("a", temperature=0, max_tokens=300))
        late = asyncio.create_task(ask("a", temperature=0, max_tokens=250))
        short = await ask("b", temperature=0, max_tokens=3)
        assert short.generated_tokens == 3
        assert not long.done()
        assert not late.done()
        assert (await late).generated_tokens == 250
        assert (await long).generated_tokens == 300


async def test_cancelled_calls_leave_nothing_behind(folder: Path) -> None:
    """1000 aborts, in the queue and in the batch; then the engine is as good as new."""
    running = Running(backend(folder))
    async with running as ask:
        worker = running.backend._worker
        assert worker is not None
        expected = await ask("after", max_tokens=20)
        for wave in range(4):
            tasks = [asyncio.create_task(ask(f"{wave} {i % 50}", seed=i)) for i in range(250)]
            await until(lambda: len(worker.decoder.memory) and worker.decoder.waiting)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await ask("after", max_tokens=20) == expected
        assert worker.decoder.idle
        assert not worker._calls
