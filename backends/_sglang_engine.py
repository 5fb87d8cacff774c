"""The engine's process, as seen from the lab's event loop: start it, ask it, abort, notice its death, close it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from backends._child import Child
from backends._confidence import confidence
from backends._sglang_child import Message, Wire, unpack
from pacore_lab.errors import BackendError, EngineDead
from pacore_lab.interfaces import Chunk, OnChunk

PROGRAM = Path(__file__).with_name("_sglang_child.py")
PATIENCE = 10
"""Seconds that a cancelled stream waits for the engine's last chunks."""
LOGPROBS_ENV = {"SGLANG_RETURN_ORIGINAL_LOGPROB": "1"}  # else log-probabilities are taken after the temperature
OWN_ENV = {
    **LOGPROBS_ENV,
    "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": "1",  # for the few tokens that SGLang keeps for itself
}
MEMORY_KEY = "backend.mem_fraction"


@dataclass(eq=False, slots=True)
class Call:
    """A pending request: who waits for it, and what has arrived so far."""

    on_chunk: OnChunk | None
    future: asyncio.Future[Message]
    text: list[str] = field(default_factory=list)
    tokens: int = 0
    confidences: list[float] = field(default_factory=list)


class Engine:
    """Made by `Engine.start`. tokens: how many its cache holds."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.tokens = 0
        self.evidence: dict[str, str] = {}
        self._dead = ""
        self._calls: dict[int, Call] = {}
        self._numbers = count()
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._wire: Wire | None = None
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, python: str, arguments: Message, env: Mapping[str, str], seconds: float) -> Engine:
        """Raises BackendError if it is not ready in time; nothing of it is then left running."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [python, str(PROGRAM), str(theirs.fileno())]
            engine = cls(await Child.start("sglang", command, env={**env, **OWN_ENV}, fds=[theirs.fileno()]))
        try:
            engine._wire = await Wire.connect(ours, engine._receive, engine._lost.set)
            engine._wire.send(arguments)
            engine._watch = asyncio.create_task(engine._die_with_child())
            async with asyncio.timeout(seconds):
                await engine._ready.wait()
        except TimeoutError:
            said = engine.child.reason(MEMORY_KEY)
            await engine.close(keep_log=True)
            raise BackendError(f"SGLang was not ready after {seconds:g} s (backend.start_timeout): {said}") from None
        except BaseException:
            await engine.close()
            raise
        if engine._dead:
            await engine.close(keep_log=True)
            hint = ""
            if "sglang cannot be imported" in engine._dead:
                hint = f"; install SGLang for {python}, or set backend.python to an environment that has it"
            raise BackendError(f"SGLang did not start: {engine._dead}{hint}")
        return engine

    async def ask(self, message: Message, on_chunk: OnChunk | None) -> tuple[Message, Call]:
        """The engine's last message on a request, and the call with all that arrived.

        Cancelling aborts the request and still delivers its last chunks.
        """
        if self._dead:
            raise EngineDead(self._dead)
        assert self._wire is not None
        number = next(self._numbers)
        call = self._calls[number] = Call(on_chunk, asyncio.get_running_loop().create_future())
        self._wire.send({"id": number, **message})
        try:
            await asyncio.wait([call.future])
        except asyncio.CancelledError:
            self._wire.send({"abort": number})
            if on_chunk is not None:
                await asyncio.wait([call.future], timeout=PATIENCE)
            raise
        finally:
            del self._calls[number]
            if call.future.done():
                call.future.exception()  # marks it as seen, even if nobody awaits it
        return call.future.result(), call

    async def close(self, *, keep_log: bool = False) -> None:
        self._die("the SGLang backend was closed")
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
        if self._wire is not None:
            self._wire.close()
        await self.child.stop()
        if not keep_log:
            self.child.discard_log()

    def _receive(self, message: Message) -> None:
        if "ready" in message:
            self.tokens, self.evidence = message["tokens"], message["ready"]
            self.child.now_ready()
            self._ready.set()
            return
        call = self._calls.get(message["id"])
        if call is None or call.future.done():
            return
        try:
            if "text" in message:
                sure = [confidence([mean]) for mean in unpack("d", message.get("means", ""))]
                new, call.tokens = message["tokens"] - call.tokens, message["tokens"]
                call.text.append(message["text"])
                call.confidences += sure
                if call.on_chunk is not None:
                    call.on_chunk(Chunk(text=message["text"], tokens=new, confidences=tuple(sure)))
        except Exception as error:
            call.future.set_exception(error)
            assert self._wire is not None
            self._wire.send({"abort": message["id"]})
            return
        if "text" not in message or "reason" in message:
            call.future.set_result(message)

    async def _die_with_child(self) -> None:
        await self._lost.wait()
        await self.child.stop()
        reason = self.child.reason(MEMORY_KEY)
        self._die(reason if not self._ready.is_set() else f"SGLang's engine died: {reason}")

    def _die(self, reason: str) -> None:
        self._dead = self._dead or reason
        self._ready.set()
        for call in self._calls.values():
            if not call.future.done():
                call.future.set_exception(EngineDead(self._dead))
