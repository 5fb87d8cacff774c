"""Several servers under one OpenAI backend, sampling over them, and a gate that holds their replies."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from backends.openai import OpenAI
from pacore_lab.sampling.dispatch import Dispatcher, Retry
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.sampling.store import Store
from pacore_lab.types import ChatMessage, SamplingParams
from tests.servers import Payload, RecordingServer, default_text


def user(text: str) -> tuple[ChatMessage, ...]:
    return ({"role": "user", "content": text},)


@asynccontextmanager
async def fleet(*replies: Callable[[Payload, int], Any] | None, **options: Any) -> AsyncIterator[list[RecordingServer]]:
    servers = [RecordingServer(reply=reply, **options) for reply in replies]
    for server in servers:
        await server.__aenter__()
    try:
        yield servers
    finally:
        for server in servers:
            await server.__aexit__()


@asynccontextmanager
async def running(backend: OpenAI, path: Path, concurrency: int = 256) -> AsyncIterator[Dispatcher]:
    store = await Store.open(path / "store.sqlite")
    retry = Retry(base=0.05, cap=0.2)
    try:
        yield Dispatcher(backend=backend, store=store, params=SamplingParams(), concurrency=concurrency, retry=retry)
    finally:
        await store.close()


async def sample(dispatch: Dispatcher, problems: Sequence[str], n: int) -> list[Any]:
    samplers = [EpisodeSampler(dispatch, seed=0, problem=name, repeat=0) for name in problems]
    calls = (sampler.sample(user(name), n) for sampler, name in zip(samplers, problems, strict=True))
    return list(itertools.chain.from_iterable(await asyncio.gather(*calls)))


def whose(payload: Payload) -> str:
    return payload["messages"][0]["content"]


class Gate:
    """Replies that are held until the gate opens, however slow the machine is."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def reply(self, payload: Payload, n: int) -> str:
        await self.opened.wait()
        return default_text(payload)


async def until_held(servers: Sequence[RecordingServer], count: int) -> None:
    await servers[0].until(lambda _: sum(server.in_flight for server in servers) == count, seconds=30)
