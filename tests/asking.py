"""Short ways to ask the OpenAI backend something, for its tests."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from aiohttp import web

from backends.openai import OpenAI
from pacore_lab.interfaces import Chunk, Request
from pacore_lab.types import ChatMessage, Completion, Model, SamplingParams
from tests.servers import RecordingServer

X: tuple[ChatMessage, ...] = ({"role": "user", "content": "What is 6 × 7?"},)


def asking(prompt: tuple[ChatMessage, ...] = X, *, seed: int = 1, **params: Any) -> Request:
    return Request(id="a", prompt=prompt, params=SamplingParams(**params), seed=seed)


Servers: TypeAlias = RecordingServer | str | Sequence[RecordingServer | str]


@asynccontextmanager
async def client(servers: Servers, **settings: Any) -> AsyncIterator[OpenAI]:
    """A started backend. Without its probe, unless asked for: the servers see the test's own requests only."""
    several = [servers] if isinstance(servers, RecordingServer | str) else servers
    urls = [server if isinstance(server, str) else server.base_url for server in several]
    settings = {"model": Model(name="m"), "probe": False, "health_interval": 0.02, **settings}
    backend = OpenAI(base_url=urls if len(urls) > 1 else urls[0], **settings)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


async def ask(servers: Servers, request: Request | None = None, **settings: Any) -> Completion:
    async with client(servers, **settings) as backend:
        return await backend.complete(request or asking())


async def ask_streaming(server: RecordingServer, **settings: Any) -> tuple[Completion, list[Chunk]]:
    chunks: list[Chunk] = []
    async with client(server, **settings) as backend:
        return await backend.complete(asking(), chunks.append), chunks


def answering(status: int, body: object = "", **headers: str) -> Callable[[dict[str, Any], int], web.Response]:
    text = body if isinstance(body, str) else json.dumps(body)
    return lambda payload, n: web.Response(
        status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def streaming(*events: object, done: bool = True) -> Callable[[dict[str, Any], int], web.Response]:
    lines = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events]
    text = "".join(lines) + ("data: [DONE]\n\n" if done else "")
    return lambda payload, n: web.Response(text=text, content_type="text/event-stream")


def delta(content: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, **more}]}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
