"""Small stand-ins shared by the core's tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from pacore_lab.interfaces import Capabilities, Chunk, OnChunk, Request
from pacore_lab.sampling.dispatch import Dispatcher, Retry
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.sampling.store import Store
from pacore_lab.types import Completion, Prompt, SamplingParams, Trajectory

Reply = Callable[[Request, int], Awaitable[Completion | str] | Completion | str]
"""(request, how many came before it) -> a completion, or its content."""


class Scripted:
    """A backend whose answers are a function; it remembers every request and who was cancelled."""

    fingerprint = "scripted"
    capabilities = Capabilities(seeds="request", partial=True)

    def __init__(self, reply: Reply = lambda request, n: f"answer {request.seed % 1000}") -> None:
        self.reply = reply
        self.requests: list[Request] = []
        self.cancelled: list[Request] = []
        self.running = 0
        self.peak = 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        number = len(self.requests)
        self.requests.append(request)
        self.running += 1
        self.peak = max(self.peak, self.running)
        if on_chunk:
            on_chunk(Chunk(text="so far", tokens=3))
        try:
            reply = self.reply(request, number)
            if isinstance(reply, Awaitable):
                reply = await reply
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        finally:
            self.running -= 1
        if isinstance(reply, Completion):
            return reply
        return Completion(content=reply, prompt_tokens=10, generated_tokens=len(reply))


def user(text: str) -> Prompt:
    return ({"role": "user", "content": text},)


def trajectory(content: str, name: str = "t", **kwargs: object) -> Trajectory:
    completion = Completion(content=content, generated_tokens=len(content))
    return Trajectory(**{"id": name, "index": 0, "completion": completion, **kwargs})  # type: ignore[arg-type]


@asynccontextmanager
async def dispatcher(
    backend: Scripted, path: Path, concurrency: int = 8, retry: Retry | None = None
) -> AsyncIterator[Dispatcher]:
    store = await Store.open(path / "store.sqlite")
    try:
        yield Dispatcher(
            backend=backend,
            store=store,
            params=SamplingParams(),
            concurrency=concurrency,
            retry=retry or Retry(attempts=3, base=0.001, cap=0.002),
        )
    finally:
        await store.close()


def episode(dispatch: Dispatcher, problem: str = "p", repeat: int = 0, pool: int | None = None) -> EpisodeSampler:
    return EpisodeSampler(dispatch, seed=0, problem=problem, repeat=repeat, pool=pool)
