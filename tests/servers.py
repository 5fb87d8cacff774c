"""A small OpenAI-compatible server that records what it is asked and fails on demand.

In a test:      async with RecordingServer(reply=lambda payload, n: "\\boxed{7}") as server: ... server.base_url
In a process:   python -m tests.servers --port 0 --record asked.jsonl     (its URL is the first line it prints)
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import hashlib
import inspect
import json
import re
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from aiohttp import web

from tests.waiting import until

Payload: TypeAlias = dict[str, Any]


class Fault(enum.Enum):
    """What a reply can be besides an answer."""

    RESET = enum.auto()  # the connection is reset before a byte is sent
    CUT = enum.auto()  # half of the body, then a reset
    CUT_CLEANLY = enum.auto()  # half of a stream, then a tidy end without a finish_reason
    STALL = enum.auto()  # half of the body, then nothing until the client leaves
    HANG = enum.auto()  # nothing at all until the client leaves


Answer: TypeAlias = Payload | str | web.Response | Fault
Reply: TypeAlias = Callable[[Payload, int], Answer | Awaitable[Answer]]


def default_text(payload: Payload) -> str:
    """What the server says unless told otherwise: a function of everything in the payload that shapes a sample."""
    shaping = {key: payload[key] for key in sorted(payload) if key not in ("stream", "stream_options", "logprobs")}
    digest = int(hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest(), 16)
    steps = " ".join(f"step {digest >> (8 * i) & 0xFF}." for i in range(4))
    return f"<think>{steps}</think>\nThe answer is \\boxed{{{digest % 1000}}}"


class RecordingServer:
    """An async context manager around one server on 127.0.0.1.

    reply: (payload, how many requests came before) -> text, a whole body (dict), any web.Response, or a Fault;
        may be a coroutine function. Text is sent as one body or, if the payload asks for it, as a stream of words.
    delay: seconds before the first byte, or a function of (payload, n). chunk_delay: seconds between chunks.
    models: what GET /v1/models lists, with `max_model_len` and `entry`; None: a server without it (404); or makes a
        Response. pages: further paths and the JSON there, or a coroutine function of the request that gives it.
    split: the field that takes the part before `</think>` ("reasoning", "reasoning_content"); None: inline.
    usage: whether token counts (words, here) are reported.
    record: a file to which every payload is appended as a line of JSON.

    Afterwards: `requests` (payloads in order of arrival), `headers` and `peers` (their host and port), `aborted`
    (requests whose client left before the answer was out), `in_flight`, `peak` (most requests held at once).
    """

    def __init__(
        self,
        reply: Reply | None = None,
        *,
        delay: float | Callable[[Payload, int], float] = 0.0,
        chunk_delay: float = 0.0,
        models: Sequence[str] | Callable[[], web.Response] | None = None,
        max_model_len: int | None = None,
        entry: Payload | None = None,
        pages: dict[str, Any] | None = None,
        split: str | None = None,
        usage: bool = True,
        port: int = 0,
        record: Path | None = None,
    ) -> None:
        self.reply: Reply = reply or (lambda payload, n: default_text(payload))
        self.delay, self.chunk_delay = delay, chunk_delay
        self.models, self.max_model_len, self.entry, self.pages = models, max_model_len, entry or {}, pages or {}
        self.split, self.usage, self.port = split, usage, port
        self.record = record.open("a", encoding="utf-8") if record else None
        self.requests: list[Payload] = []
        self.headers: list[dict[str, str]] = []
        self.peers: list[Any] = []
        self.aborted = self.in_flight = self.peak = 0
        self.closing = False

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> RecordingServer:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        for path in self.pages:
            app.router.add_route("*", path, self._page)
        self.closing = False
        self.runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port, backlog=4096)
        await site.start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closing = True
        await self.runner.cleanup()
        if self.record:
            self.record.close()

    async def kill(self) -> None:
        """Gone at once, as by SIGKILL; `restart` brings it back on the same port."""
        self.closing = True
        for site in list(self.runner.sites):
            await site.stop()
        for connection in list(self.runner.server.connections if self.runner.server else ()):
            if connection.transport is not None:
                connection.transport.abort()
        await self.runner.cleanup()

    async def restart(self) -> None:
        await self.__aenter__()

    async def until(self, condition: Callable[[RecordingServer], bool], seconds: float = 5) -> None:
        """Waits until e.g. `lambda s: s.aborted == 1`; TimeoutError if that does not come about."""
        await until(lambda: condition(self), seconds)

    async def _models(self, request: web.Request) -> web.Response:
        if callable(self.models):
            return self.models()
        if self.models is None:
            return web.json_response({"detail": "Not Found"}, status=404)
        length = {} if self.max_model_len is None else {"max_model_len": self.max_model_len}
        entries = [{"id": name, "object": "model", **length, **self.entry} for name in self.models]
        return web.json_response({"object": "list", "data": entries})

    async def _page(self, request: web.Request) -> web.Response:
        content = self.pages[request.path]
        if callable(content):
            content = await content(request)
        return content if isinstance(content, web.Response) else web.json_response(content)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        payload = await request.json()
        n = len(self.requests)
        self.requests.append(payload)
        self.headers.append(dict(request.headers))
        self.peers.append(request.transport.get_extra_info("peername") if request.transport else None)
        if self.record:
            self.record.write(json.dumps(payload) + "\n")
            self.record.flush()
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        fault: Fault | None = None
        try:
            await asyncio.sleep(self.delay(payload, n) if callable(self.delay) else self.delay)
            answer = self.reply(payload, n)
            if inspect.isawaitable(answer):
                answer = await answer
            if isinstance(answer, web.Response):
                return answer
            if isinstance(answer, Fault):
                fault, answer = answer, default_text(payload)
            if fault is Fault.HANG:
                await asyncio.Event().wait()
            if fault is Fault.RESET:
                _reset(request)
            body = self.body(answer, payload) if isinstance(answer, str) else answer
            if payload.get("stream") and isinstance(answer, str):
                return await self._send(request, "text/event-stream", self._events(body), fault)
            whole = json.dumps(body)
            return await self._send(request, "application/json", [whole[:40], whole[40:]], fault)
        except (asyncio.CancelledError, ConnectionError):
            self.aborted += not self.closing and fault not in (Fault.RESET, Fault.CUT)
            raise
        finally:
            self.in_flight -= 1

    async def _send(
        self, request: web.Request, content_type: str, pieces: list[str], fault: Fault | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for i, piece in enumerate(pieces):
            if fault and i >= len(pieces) // 2:
                await asyncio.sleep(0.01)  # so that the first half is read
                if fault is Fault.CUT_CLEANLY:
                    break
                if fault is Fault.CUT:
                    _reset(request)
                await asyncio.Event().wait()
            await response.write(piece.encode())
            await asyncio.sleep(self.chunk_delay if i else 0)
        await response.write_eof()
        return response

    def body(self, text: str, payload: Payload) -> Payload:
        """A whole chat completion around a text."""
        message: Payload = {"role": "assistant", "content": text}
        if self.split and "</think>" in text:
            thought, _, rest = text.partition("</think>")
            message = {"role": "assistant", "content": rest, self.split: thought.removeprefix("<think>")}
        tokens = len(_words(text))
        scores = {"content": [{"token": w, "logprob": -(i % 8) / 8} for i, w in enumerate(_words(text))]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        choice["logprobs"] = scores if payload.get("logprobs") else None
        asked = sum(len(_words(str(turn.get("content")))) for turn in payload["messages"])
        usage = {"prompt_tokens": asked, "completion_tokens": tokens, "total_tokens": asked + tokens}
        body = {"id": "chatcmpl-0", "object": "chat.completion", "model": payload["model"], "choices": [choice]}
        return body | ({"usage": usage} if self.usage else {})

    def _events(self, body: Payload) -> list[str]:
        """The same completion as server-sent events, a word (and its log-probability) each, as vLLM sends them."""
        choice = body["choices"][0]
        scores = iter(choice["logprobs"]["content"] if choice["logprobs"] else [])
        deltas: list[Payload] = [{"role": "assistant", "content": ""}]
        for key in filter(None, (self.split, "content")):
            deltas += [{key: word} for word in _words(choice["message"].get(key, ""))]
        events: list[Payload] = []
        for delta in deltas:
            score = next(scores, None) if "role" not in delta else None
            part = {"index": 0, "delta": delta, "finish_reason": None}
            events.append({"choices": [part | {"logprobs": {"content": [score]} if score else None}]})
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
        if "usage" in body:
            events.append({"choices": [], "usage": body["usage"]})
        return [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"]


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def _reset(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError("on purpose")


async def _serve(args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    models = args.models.split(",") if args.models else None
    server = RecordingServer(port=args.port, record=args.record, delay=args.delay, models=models, split=args.split)
    async with server:
        print(server.base_url, flush=True)
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A recording OpenAI-compatible server; runs until SIGTERM.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--record", type=Path, help="file to append every payload to, a line of JSON each")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--models", help="names that GET /v1/models lists, with commas between them; none: 404")
    parser.add_argument("--split", help="field for the thinking: reasoning or reasoning_content; none: inline")
    asyncio.run(_serve(parser.parse_args()))
