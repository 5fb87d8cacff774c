"""Warm workers, shared by all programs of a grader."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence

from pacore_lab.errors import ConfigError
from pacore_lab.grading.code.sandbox import KINDS, Kind
from pacore_lab.grading.code.worker import Fault, Job, Limits, Worker

_PROBE = Job(mode="script", code="print(int(input()) + 1)", input="1\n")


class Pool:
    """Up to `size` workers, started when first needed and replaced when they fail or leave something behind.

    kinds: sandboxes in order of preference. kind: the first that works here.
    """

    def __init__(self, *, size: int, kinds: Sequence[Kind], limits: Limits) -> None:
        self._size = size
        self._kinds = kinds
        self._limits = limits
        self._idle: list[Worker] = []
        self._started: set[Worker] = set()
        self._busy = 0
        self._alone = False  # a program runs alone, or waits to
        self._changed = asyncio.Condition()
        self._starting = asyncio.Lock()
        self._closed = False
        self.kind: Kind | None = None

    async def start(self) -> None:
        """Find the sandbox by running a program in it. Raises ConfigError if none works, and off Linux."""
        if sys.platform != "linux":
            raise ConfigError("programs are graded on Linux only; run there, or set grader=none")
        async with self._starting:
            tried = []
            for kind in () if self.kind else self._kinds:
                try:
                    worker = await self._new(kind)
                    end = await worker.run(_PROBE, self._limits)
                    if end.output == b"2\n" and worker.usable:
                        self.kind = kind
                        self._idle.append(worker)
                        return
                    tried.append(f"{kind}: a first program failed ({end.note or end.stopped})")
                    self._drop(worker)
                except Fault as fault:
                    tried.append(f"{kind}: {fault}")
            if tried:
                raise ConfigError(
                    f"no sandbox for programs works here ({'; '.join(tried)}); install bubblewrap, or set "
                    "grader.allow_unsafe=true to run a model's programs with limits as their only protection"
                )

    @contextlib.asynccontextmanager
    async def worker(self, *, alone: bool = False) -> AsyncIterator[Worker]:
        """A worker for the block; `alone` waits until all others are idle. Raises Fault if it cannot start."""
        async with self._changed:
            if alone:
                await self._changed.wait_for(lambda: not self._alone)
                self._alone = True
            try:
                await self._changed.wait_for(
                    (lambda: not self._busy) if alone else (lambda: not self._alone and self._busy < self._size)
                )
            except BaseException:
                self._alone = self._alone and not alone
                self._changed.notify_all()
                raise
            self._busy += 1
        try:
            worker = await self._take()
            try:
                yield worker
            finally:
                if worker.usable and not self._closed:
                    self._idle.append(worker)
                else:
                    self._drop(worker)
        finally:
            async with self._changed:
                self._busy -= 1
                self._alone = self._alone and not alone
                self._changed.notify_all()

    async def close(self) -> None:
        """End every worker; running and waiting programs get a Fault. Safe to call twice."""
        self._closed = True
        for worker in tuple(self._started):
            self._drop(worker)
        self._idle.clear()

    async def _take(self) -> Worker:
        await self.start()
        if self._closed:
            raise Fault("the grader was closed")
        if self._idle:
            return self._idle.pop()
        assert self.kind is not None
        return await self._new(self.kind)

    async def _new(self, kind: Kind) -> Worker:
        worker = await Worker.start(kind)
        self._started.add(worker)
        return worker

    def _drop(self, worker: Worker) -> None:
        self._started.discard(worker)
        worker.kill()


def kinds_of(sandbox: str, allow_unsafe: bool) -> tuple[Kind, ...]:
    """The sandboxes that `grader.sandbox` and `grader.allow_unsafe` allow, in order. Raises ValueError."""
    unsafe: tuple[Kind, ...] = ("none",) if allow_unsafe else ()
    if sandbox == "auto":
        return (*KINDS, *unsafe)
    if sandbox == "none" and not allow_unsafe:
        raise ValueError("grader.sandbox=none needs grader.allow_unsafe=true: it runs programs with limits only")
    for kind in (*KINDS, *unsafe):
        if kind == sandbox:
            return (kind,)
    raise ValueError(f"grader.sandbox is {sandbox!r}; give auto, {', '.join(KINDS)} or none")
