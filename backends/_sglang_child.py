"""The program around sglang.Engine: `python _sglang_child.py FD`, run by backends.sglang in an interpreter with SGLang.

Standalone (standard library and sglang only), so that the interpreter need not have the lab. The inherited socket FD
carries JSON objects, one per line. The first one in holds the engine's arguments, and the first one out says "ready".
Then requests and {"abort": id} come in, and their new output goes out. When the socket closes, everything ends.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import math
import os
import socket
import sys
from array import array
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]


class Wire(asyncio.Protocol):
    """One end of the socket. All messages of one turn of the event loop go out in one write."""

    def __init__(self, receive: Callable[[Message], None], lost: Callable[[], None]) -> None:
        self._receive, self._lost = receive, lost
        self._transport: asyncio.Transport | None = None
        self._inbox = b""
        self._outbox: list[str] = []

    @classmethod
    async def connect(cls, end: socket.socket, receive: Callable[[Message], None], lost: Callable[[], None]) -> Wire:
        _, wire = await asyncio.get_running_loop().create_unix_connection(lambda: cls(receive, lost), sock=end)
        return wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            self._receive(json.loads(line))

    def connection_lost(self, error: Exception | None) -> None:
        self._lost()

    def send(self, message: Message) -> None:
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(json.dumps(message))

    def _flush(self) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(("\n".join(self._outbox) + "\n").encode())
        self._outbox.clear()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def pack(typecode: str, numbers: Any) -> str:
    """Numbers as base64 of machine words: fifty times faster than a JSON list, and prompts are long."""
    return base64.b64encode(array(typecode, numbers).tobytes()).decode()


def unpack(typecode: str, packed: str) -> list[Any]:
    return array(typecode, base64.b64decode(packed)).tolist()


class Server:
    """Answers requests with an engine until the lab closes the socket."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.manager = engine, engine.tokenizer_manager
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.aborts: set[asyncio.Task[None]] = set()
        self.over = asyncio.Event()

    async def serve(self, end: socket.socket, ready: Message) -> None:
        self.wire = await Wire.connect(end, self.receive, self.over.set)
        self.wire.send(ready)
        await self.over.wait()

    def receive(self, message: Message) -> None:
        if "abort" in message:
            task = asyncio.create_task(self.abort(message["abort"]))
            self.aborts.add(task)
            task.add_done_callback(self.aborts.discard)
            return
        number = message["id"]
        self.tasks[number] = asyncio.create_task(self.answer(number, message))
        self.tasks[number].add_done_callback(lambda _: self.tasks.pop(number))

    async def abort(self, number: int) -> None:
        while (task := self.tasks.get(number)) is not None:
            self.manager.abort_request(rid=name_of(number))  # has no effect until the engine knows it
            await asyncio.wait([task], timeout=0.1)

    async def answer(self, number: int, message: Message) -> None:
        try:
            asked: Message = {
                "input_ids": unpack("i", message["prompt"]),
                "sampling_params": message["sampling"],
                "return_logprob": message["logprobs"],
                "top_logprobs_num": message["top"],
                "priority": message["priority"],
                "rid": name_of(number),
            }
            if not message["stream"]:
                self.wire.send(last(number, await self.engine.async_generate(**asked), "", 0))
                return
            text, told = "", 0
            async for out in await self.engine.async_generate(**asked, stream=True):  # texts are cumulative
                if out["meta_info"]["finish_reason"]:
                    self.wire.send(last(number, out, text, told))
                elif new := out["text"][len(text) :]:
                    tokens, means = out["meta_info"]["completion_tokens"], means_of(out, told)
                    self.wire.send({"id": number, "text": new, "tokens": tokens, **means})
                    text, told = out["text"], tokens
        except ValueError as error:  # SGLang refuses the request
            self.wire.send({"id": number, "refused": str(error)})
        except Exception as error:
            self.wire.send({"id": number, "failed": str(getattr(error, "detail", "")) or repr(error)})


def name_of(number: int) -> str:
    """No name is a prefix of another, since SGLang aborts all requests whose names start with the given one."""
    return f"{number}."


def means_of(out: Message, told: int) -> Message:
    """The likeliest tokens' mean log-probability, at each place after the first `told`; {} unless asked for."""
    meta = out["meta_info"]
    places = (meta.get("output_top_logprobs") or ())[told : meta["completion_tokens"]]
    means = [math.fsum(entry[0] for entry in place) / len(place) for place in places]
    return {"means": pack("d", means)} if means else {}


def last(number: int, out: Message, sent: str, told: int) -> Message:
    """The last message of a request: the text beyond `sent`, why it ended, and its figures."""
    meta = out["meta_info"]
    reason = meta["finish_reason"]
    if reason["type"] == "abort" and reason.get("status_code") == 400:
        return {"id": number, "refused": reason.get("message", "")}
    logprobs = [entry[0] for entry in meta.get("output_token_logprobs") or ()]
    return {
        "id": number,
        "text": out["text"][len(sent) :],
        "tokens": meta["completion_tokens"],
        "reason": reason["type"],
        "cached": meta.get("cached_tokens", 0),
        "logprobs": pack("d", logprobs),
        **means_of(out, told),
        **({"why": reason.get("message", "")} if reason["type"] == "abort" else {}),
    }


def launch(settings: Message) -> tuple[Any, Message]:
    """The engine and its description. Ends the process, with one line, if it cannot be made."""
    try:
        import sglang
        from sglang.srt.server_args import ServerArgs
    except ImportError as error:
        sys.exit(f"error: sglang cannot be imported: {error}")
    known = getattr(ServerArgs, "__struct_fields__", None) or [field.name for field in dataclasses.fields(ServerArgs)]
    if unknown := sorted(set(settings) - set(known)):
        sys.exit(f"error: sglang {sglang.__version__} has no argument {', '.join(unknown)} (backend.engine_args)")
    engine = sglang.Engine(**settings)
    info = engine._scheduler_init_result.scheduler_infos[0]
    device = str(engine.server_args.device)
    return engine, {
        "ready": {"engine": f"sglang {sglang.__version__}", "device": device},
        "tokens": info["max_total_num_tokens"],
    }


def main() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]  # it has a sglang.py and an openai.py
    end = socket.socket(fileno=int(sys.argv[1]))
    with end.makefile("rb", buffering=0) as lines:
        line = lines.readline()
    engine, ready = launch(json.loads(line))

    async def serve() -> None:
        await Server(engine).serve(end, ready)

    try:
        asyncio.run(serve())
    finally:
        with contextlib.suppress(BaseException):
            engine.shutdown()
        os._exit(0)


if __name__ == "__main__":
    main()
