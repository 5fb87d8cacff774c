"""Requests while they run on real engines, held to what a backend promises (`pacore_lab.interfaces.Backend`).

Their chunks, cancelling them, a thousand at once, and who comes first.
"""

from __future__ import annotations

import asyncio
import random
from statistics import median

import pytest

from pacore_lab.interfaces import Backend, Chunk, Request
from pacore_lab.types import ChatMessage
from tests.engines.asking import asking, rambling, tokens_of
from tests.engines.metrics import busy, idle

pytestmark = pytest.mark.asyncio(loop_scope="session")
SERVED = ("vllm_server", "sglang_server")


async def test_chunks_add_up(engine: Backend, kind: str) -> None:
    for seed in range(4):
        chunks: list[Chunk] = []
        done = await engine.complete(asking(seed=seed), chunks.append)
        assert "".join(chunk.text for chunk in chunks) == done.content
        counted = sum(chunk.tokens for chunk in chunks)
        if kind in SERVED:  # a server that is busy puts several tokens into an event, and does not say how many
            assert 0.7 * done.generated_tokens <= counted <= done.generated_tokens
        else:
            assert counted in (done.generated_tokens, done.generated_tokens - 1)


async def test_cancelling_aborts_in_the_engine_and_keeps_what_there_was(engine: Backend, kind: str) -> None:
    """Confirmed by the engine's own metrics, within two seconds."""
    found: list[list[Chunk]] = [[] for _ in range(16)]
    tasks = [
        asyncio.create_task(engine.complete(rambling(seed, max_tokens=4000), chunks.append))
        for seed, chunks in enumerate(found)
    ]
    async with asyncio.timeout(60):
        while not all(
            sum(chunk.tokens for chunk in chunks) > 8 or task.done() for chunks, task in zip(found, tasks, strict=True)
        ):
            await asyncio.sleep(0.01)
    left = [i for i, task in enumerate(tasks) if not task.done()]
    assert len(left) >= 4, "too few of them are long enough; take other seeds"
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(tasks[i].cancelled() for i in left)
    assert await idle(kind, engine, seconds=10) < 2
    for i in left:
        assert sum(chunk.tokens for chunk in found[i]) >= 2
        assert "".join(chunk.text for chunk in found[i])


async def test_1000_cancelled_requests_leave_nothing(engine: Backend, kind: str) -> None:
    """Cancelled before they are sent, while they wait and while they run; then the engine is idle and works."""
    generator = random.Random(0)

    async def cancelled(seed: int) -> None:
        task = asyncio.create_task(
            engine.complete(rambling(seed, max_tokens=2000), [None, lambda chunk: None][seed % 2])
        )
        await asyncio.sleep(generator.choice([0, 0.001, 0.05, generator.random()]))
        task.cancel()
        await asyncio.wait([task])

    for start in range(0, 1000, 250):
        await asyncio.gather(*(cancelled(seed) for seed in range(start, start + 250)))
    assert await idle(kind, engine, seconds=30) < 5
    assert len([task for task in asyncio.all_tasks() if not task.done()]) < 20
    done = await asyncio.gather(*(engine.complete(asking(seed=seed)) for seed in range(64)))
    assert all(item.finish_reason == "stop" for item in done)


async def test_1024_at_once(engine: Backend, kind: str) -> None:
    """All answered, none mixed up with another, and more of them at work than one."""
    prompts: list[tuple[ChatMessage, ...]] = [
        ({"role": "user", "content": f"What is {i} * {i + 1}?{' ' * (i % 7)}"},) for i in range(1024)
    ]
    tasks = [
        asyncio.create_task(engine.complete(asking(prompt, seed=i, max_tokens=40 + i % 50)))
        for i, prompt in enumerate(prompts)
    ]
    peak = 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0.2)
        peak = max(peak, await busy(kind, engine))
    assert peak > 64, "the engine never had many of them at once"
    for i, done in enumerate(await asyncio.gather(*tasks)):
        assert done.prompt_tokens == len(tokens_of(prompts[i]))
        assert done.generated_tokens <= 40 + i % 50
        assert done.finish_reason in ("stop", "length")
        assert done.content


async def test_later_rounds_overtake(engine: Backend, kind: str) -> None:
    """Where the engine has a queue of its own it serves the lowest priority number first."""
    if not engine.capabilities.priority:
        assert kind in SERVED  # the chat API knows no priority
        return
    clock, ends = asyncio.get_running_loop().time, {}

    async def timed(request: Request) -> None:
        await engine.complete(request)
        ends[request.priority] = [*ends.get(request.priority, []), clock()]

    early = [asyncio.create_task(timed(rambling(seed, max_tokens=150, priority=-1))) for seed in range(900)]
    await asyncio.sleep(1.0)
    late = [asyncio.create_task(timed(rambling(seed, max_tokens=150, priority=-2))) for seed in range(8)]
    await asyncio.gather(*early, *late)
    assert median(ends[-2]) < sorted(ends[-1])[int(0.75 * len(ends[-1]))]
