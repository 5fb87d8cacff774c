"""The thread that owns the decoder, and the hand-over between it and asyncio."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from backends._hf_decoder import Decoder
from backends._hf_rows import Row
from pacore_lab.errors import EngineDead
from pacore_lab.interfaces import Chunk, OnChunk
from pacore_lab.types import Completion, mean_and_windows


@dataclass(kw_only=True, eq=False, slots=True)
class Call(Row):
    """A row and who waits for it. `future` and `on_chunk` are touched by the event loop only."""

    future: asyncio.Future[Completion]
    on_chunk: OnChunk | None
    clamped: bool
    stream: Any = None
    sent: list[str] = field(default_factory=list)


class Worker:
    """Runs a decoder in a thread of its own. Its methods are for the event loop that made it."""

    def __init__(self, decoder: Decoder, tokenizer: Any) -> None:
        self.decoder, self.tokenizer = decoder, tokenizer
        self.dead = ""
        self._loop = asyncio.get_running_loop()
        self._calls: set[Call] = set()
        self._inbox: queue.SimpleQueue[Call | None] = queue.SimpleQueue()  # None: look for cancelled rows, or close
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="hf-decoder", daemon=True)
        self._thread.start()

    async def finish(self, call: Call) -> Completion:
        """Hand a call over and wait. Cancelling drops its row before the next step."""
        if self.dead:
            raise EngineDead(self.dead)
        self._calls.add(call)
        self._inbox.put(call)
        try:
            return await call.future
        finally:
            self._calls.discard(call)
            if not call.finish_reason:
                call.cancelled = True
                self._inbox.put(None)

    async def close(self) -> None:
        self._closing = True
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)
        self._die("the HF backend was closed")

    def _run(self) -> None:
        try:
            while not self._closing:
                self._receive()
                if not self.decoder.idle:
                    rows = self.decoder.step()
                    self._send(self._deliver, [event for row in rows if (event := self._event(row))])
        except BaseException as error:  # out of memory, or a bug: nobody may be left waiting
            reason = f"the HF backend died: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            if "memory" in reason.lower():
                reason += " (lower backend.max_batch or backend.cache_tokens)"
            self._send(self._die, reason)

    def _receive(self) -> None:
        """Take what has come in; wait for something when there is nothing to do."""
        cancelled = False
        while True:
            try:
                call = self._inbox.get(block=self.decoder.idle and not cancelled)
            except queue.Empty:
                break
            if call is None:
                cancelled = True
            else:
                self.decoder.submit(call)
            if self._closing:
                return
        if cancelled:
            self.decoder.drop_cancelled()

    def _send(self, function: Any, argument: Any) -> None:
        if argument and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, argument)

    def _event(self, row: Row) -> tuple[Call, Chunk | None, Completion | None] | None:
        """What a step of a row means to its caller: text, if streamed, and the completion, if finished."""
        assert isinstance(row, Call)
        completion = self._completion(row) if row.finish_reason else None
        if row.on_chunk is None:
            return (row, None, completion) if completion else None
        if completion is None:
            text = row.stream.step(self.tokenizer.backend_tokenizer, row.tokens[-1]) or ""
            row.sent.append(text)
        else:
            text = completion.content.removeprefix("".join(row.sent))
        return row, Chunk(text=text, tokens=1, confidences=tuple(row.confidences[-1:])), completion

    def _completion(self, call: Call) -> Completion:
        tokens = call.tokens[:-1] if call.finish_reason == "stop" else call.tokens
        mean, windows = mean_and_windows(call.logprob if call.logprobs else ())
        return Completion(
            content=self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False),
            finish_reason=call.finish_reason,
            prompt_tokens=len(call.prompt),
            generated_tokens=len(call.tokens),
            cached_tokens=call.cached_tokens,
            max_tokens=call.max_tokens,
            clamped=call.clamped,
            mean_logprob=mean,
            window_logprobs=windows,
            confidences=tuple(call.confidences) if call.top_logprobs else None,
        )

    def _deliver(self, events: Iterable[tuple[Call, Chunk | None, Completion | None]]) -> None:
        for call, chunk, completion in events:
            if call.future.done():
                continue
            try:
                if chunk is not None and call.on_chunk is not None:
                    call.on_chunk(chunk)
            except Exception as error:
                call.future.set_exception(error)
                continue
            if completion is not None:
                call.future.set_result(completion)

    def _die(self, reason: str) -> None:
        self.dead = self.dead or reason
        for call in list(self._calls):
            if not call.future.done():
                call.future.set_exception(EngineDead(self.dead))
