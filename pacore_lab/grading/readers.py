"""Killable processes that read model text as mathematics, each with a hard limit on time and memory.

These are plain subprocesses rather than multiprocessing. A spawned or forkserver child imports the user's `__main__`
again, which may load torch (seconds, and more address space than the memory limit) or lack an
`if __name__ == "__main__"` guard.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pacore_lab.grading.cache import Cache, Question

START_TIMEOUT = 120.0
"""Seconds for a worker to import math-verify on a busy machine; not counted in a grading's time."""
MAX_REMEMBERED = 100_000
MAX_TIMEOUTS = 8
"""How many questions of one batch may time out; later questions are then not asked."""
INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")


class Ungraded(Exception):
    """No reply; the message says why."""


class TimedOut(Ungraded):
    """No reply in time. Remembered, so that a hostile answer sampled 500 times costs only one timeout."""


class Failed(Ungraded):
    """The process died, was killed from outside, or ran out of memory."""


class Worker:
    """One child process, used by one thread at a time; only `kill` may come from another thread."""

    def __init__(self, memory_mb: int) -> None:
        # -P keeps this folder off the child's path. The child gets no secrets from the environment. A fixed hash seed
        # gives sympy the same order of terms, hence the same verdict, in every run.
        script = Path(__file__).with_name("reader_process.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script), str(memory_mb), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                **{name: os.environ[name] for name in INHERITED if name in os.environ},
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "PYTHONHASHSEED": "0",
            },
        )
        self._received = b""

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ready(self) -> None:
        """Wait until math-verify is loaded. Raises Ungraded."""
        self._receive(START_TIMEOUT, "grader did not start within")

    def ask(self, questions: Sequence[Question]) -> None:
        """Send questions; each gets one `reply`. Raises Ungraded, after which the worker is unusable."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(questions).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Failed("grader process died") from error

    def reply(self, timeout: float) -> Any:
        """The next reply. Raises Ungraded, after which the worker is unusable."""
        return self._receive(timeout, "grader timed out after")

    def kill(self) -> None:
        """End the process at once and leave no zombie. A thread waiting in `reply` gets Ungraded."""
        self._process.kill()
        self._process.wait()

    def discard(self) -> None:
        """`kill`, and close the pipes."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # a request that was never read
                pipe.close()

    def _receive(self, timeout: float, late: str) -> Any:
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimedOut(f"{late} {timeout:g} s")
                chunk = os.read(self._process.stdout.fileno(), 65536)
                if not chunk:
                    raise Failed("grader process died")
                self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(reply["error"])
        return reply["reply"]


class Pool:
    """Up to `workers` child processes, started when first needed and replaced when one fails.

    Each thread of the executor drives one worker. (On Linux a worker dies with the thread that started it, and the
    executor's threads live until `close`.)
    """

    def __init__(self, *, workers: int, memory_mb: int, timeout: float, cache: Cache | None = None) -> None:
        self.cache = cache
        self._size = workers
        self._memory_mb = memory_mb
        self._timeout = timeout
        self._executor: ThreadPoolExecutor | None = None
        self._idle: list[Worker] = []
        self._started: set[Worker] = set()
        self._lock = threading.Lock()
        self._replies: dict[Question, Any] = {}  # also holds each TimedOut, which never goes to disk

    async def ask(self, questions: Sequence[Question]) -> list[Any]:
        """The reply to each question, or the Ungraded in its place. One round trip per worker."""
        if not questions:
            return []
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._size, thread_name_prefix="grader")
            executor = self._executor
        distinct = list(dict.fromkeys(questions))
        loop = asyncio.get_running_loop()
        shares = [distinct[start :: self._size] for start in range(min(self._size, len(distinct)))]
        found = await asyncio.gather(*(loop.run_in_executor(executor, self._answer, share) for share in shares))
        replies = {question: reply for some in found for question, reply in some.items()}
        return [replies[question] for question in questions]

    def close(self) -> None:
        """End every worker; answers being graded or waiting become ungraded. A later `ask` starts new workers."""
        with self._lock:
            executor, self._executor = self._executor, None
            for worker in self._started:
                worker.kill()
        if executor is not None:
            executor.shutdown()  # tasks still waiting find the pool closed
        self._idle.clear()
        for worker in tuple(self._started):
            self._drop(worker)
        if self.cache is not None:
            self.cache.close()

    def _answer(self, questions: Sequence[Question]) -> dict[Question, Any]:
        """Replies from memory, then from disk, then from a worker."""
        with self._lock:
            replies = {question: self._replies[question] for question in questions if question in self._replies}
        if self.cache is not None and len(replies) < len(questions):
            replies |= self.cache.get(question for question in questions if question not in replies)
        asked = self._ask([question for question in questions if question not in replies])
        if self.cache is not None and asked:
            self.cache.put({question: reply for question, reply in asked.items() if not isinstance(reply, Ungraded)})
        replies |= asked
        with self._lock:
            if len(self._replies) + len(replies) > MAX_REMEMBERED:
                self._replies.clear()
            kept = (TimedOut, bool, dict, type(None))
            self._replies |= {question: reply for question, reply in replies.items() if isinstance(reply, kept)}
        return replies

    def _ask(self, questions: Sequence[Question]) -> dict[Question, Any]:
        """Ask one worker after another: a question that kills a worker costs only its own reply."""
        replies: dict[Question, Any] = {}
        again: set[Question] = set()
        timeouts = 0
        while left := [question for question in questions if question not in replies]:
            if timeouts == MAX_TIMEOUTS:
                return replies | dict.fromkeys(left, Failed("too many answers before it timed out"))
            try:
                for question, reply in self._ask_one_worker(left):
                    replies[question] = reply
            except Failed as error:  # perhaps not this question's fault: killed while idle, or others used the memory
                culprit = next(question for question in left if question not in replies)
                if culprit in again:
                    replies[culprit] = error
                again.add(culprit)
            except TimedOut as error:
                replies[next(question for question in left if question not in replies)] = error
                timeouts += 1
            except Ungraded as error:  # no worker could be started
                return replies | dict.fromkeys((q for q in left if q not in replies), error)
        return replies

    def _ask_one_worker(self, questions: Sequence[Question]) -> Iterator[tuple[Question, Any]]:
        worker = self._take()
        try:
            worker.ask(questions)
            for question in questions:
                yield question, worker.reply(self._timeout)
        except BaseException:
            self._drop(worker)
            raise
        with self._lock:
            self._idle.append(worker)

    def _take(self) -> Worker:
        """An idle worker, or a new one once it is ready. Raises Ungraded."""
        while True:
            with self._lock:
                if self._executor is None:
                    raise Ungraded("grader was closed")
                new = not self._idle
                try:
                    worker = Worker(self._memory_mb) if new else self._idle.pop()
                except OSError as error:  # no memory, or no free descriptor
                    raise Ungraded(f"grader did not start: {error}") from error
                self._started.add(worker)
            if new:
                break
            if worker.alive:
                return worker
            self._drop(worker)
        try:
            worker.ready()
        except Ungraded as error:
            self._drop(worker)
            raise Ungraded(str(error)) from error  # not TimedOut: a slow start is not the answer's fault
        return worker

    def _drop(self, worker: Worker) -> None:
        with self._lock:
            self._started.discard(worker)
        worker.discard()
