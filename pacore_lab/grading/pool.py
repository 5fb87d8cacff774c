"""Killable processes that compare two answers, each with a hard limit on time and memory.

Plain subprocesses rather than multiprocessing: a spawned or forkserver child imports the user's `__main__` again, which
may load torch (seconds, and more address space than the memory limit) or lack an `if __name__ == "__main__"` guard.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

START_TIMEOUT = 120.0
"""Seconds for a worker to import math-verify on a busy machine; not part of a grading's time."""
MAX_REMEMBERED = 100_000
INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")


class Ungraded(Exception):
    """No verdict; the message says why."""


class TimedOut(Ungraded):
    """No verdict in time. Remembered, so that one hostile answer sampled 500 times costs its timeout once."""


class Failed(Ungraded):
    """The process died, was killed from outside, or ran out of memory."""


class Worker:
    """One child process, used by one thread at a time; only `kill` may come from another."""

    def __init__(self, memory_mb: int) -> None:
        # -P keeps this folder off the child's path; secrets in the environment are none of its business; a fixed
        # hash seed gives sympy the same order of terms, hence the same verdict, in every run.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), str(memory_mb), str(os.getpid())],
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

    def ask(self, gold: str, answer: str, mutual: bool, timeout: float) -> bool:
        """The verdict. Raises Ungraded; the worker is then of no more use."""
        assert self._process.stdin is not None
        request = json.dumps({"gold": gold, "answer": answer, "mutual": mutual}) + "\n"
        try:
            self._process.stdin.write(request.encode())
            self._process.stdin.flush()
        except OSError as error:
            raise Failed("grader process died") from error
        return self._receive(timeout, "grader timed out after")

    def kill(self) -> None:
        """End the process at once and leave no zombie. A thread that waits in `ask` gets Ungraded."""
        self._process.kill()
        self._process.wait()

    def discard(self) -> None:
        """`kill`, and give back the pipes."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # a request that was never read
                pipe.close()

    def _receive(self, timeout: float, late: str) -> bool:
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
        verdict = json.loads(line)
        if "error" in verdict:
            raise Failed(verdict["error"])
        return bool(verdict["equal"])


class Pool:
    """Up to `workers` child processes, started when first needed and replaced when one fails.

    Each thread of the executor drives one worker. (On Linux a worker dies with the thread that started it, and the
    executor's threads live until `close`.)
    """

    def __init__(self, *, workers: int, memory_mb: int, timeout: float) -> None:
        self._size = workers
        self._memory_mb = memory_mb
        self._timeout = timeout
        self._executor: ThreadPoolExecutor | None = None
        self._idle: list[Worker] = []
        self._started: set[Worker] = set()
        self._lock = threading.Lock()
        self._verdicts: dict[tuple[str, str, bool], bool | str] = {}

    async def equal(self, gold: str, answer: str, *, mutual: bool = False) -> bool:
        """Whether math-verify takes `answer` for `gold`, and `gold` for `answer` too if `mutual`. Raises Ungraded."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._size, thread_name_prefix="grader")
            executor = self._executor
        return await asyncio.get_running_loop().run_in_executor(executor, self._equal, gold, answer, mutual)

    def close(self) -> None:
        """End every worker; what is being graded, or waits for it, becomes ungraded. A later `equal` starts afresh."""
        with self._lock:
            executor, self._executor = self._executor, None
            for worker in self._started:
                worker.kill()
        if executor is not None:
            executor.shutdown()  # what still waits finds the pool closed
        self._idle.clear()
        for worker in tuple(self._started):
            self._drop(worker)

    def _equal(self, gold: str, answer: str, mutual: bool) -> bool:
        question = (gold, answer, mutual)
        if question not in self._verdicts:
            if len(self._verdicts) >= MAX_REMEMBERED:
                self._verdicts.clear()
            try:
                self._verdicts[question] = self._ask(question)
            except TimedOut as error:
                self._verdicts[question] = str(error)
        verdict = self._verdicts[question]
        if isinstance(verdict, str):
            raise TimedOut(verdict)
        return verdict

    def _ask(self, question: tuple[str, str, bool]) -> bool:
        try:
            return self._ask_once(question)
        except Failed:  # perhaps through no fault of this question: killed while idle, memory used up by others
            return self._ask_once(question)

    def _ask_once(self, question: tuple[str, str, bool]) -> bool:
        worker = self._take()
        try:
            verdict = worker.ask(*question, timeout=self._timeout)
        except BaseException:
            self._drop(worker)
            raise
        with self._lock:
            self._idle.append(worker)
        return verdict

    def _take(self) -> Worker:
        """An idle worker, or a new one once it is ready. Raises Ungraded."""
        while True:
            with self._lock:
                if self._executor is None:
                    raise Ungraded("grader was closed")
                new = not self._idle
                try:
                    worker = Worker(self._memory_mb) if new else self._idle.pop()
                except OSError as error:  # no memory, no free descriptor
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
            raise Ungraded(str(error)) from error  # a slow start is no fault of the answer: not TimedOut
        return worker

    def _drop(self, worker: Worker) -> None:
        with self._lock:
            self._started.discard(worker)
        worker.discard()
