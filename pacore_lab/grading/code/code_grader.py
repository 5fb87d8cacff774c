"""The graders of programs: `LcbOfficial` is comparable to LiveCodeBench's runner, `LcbSubprocess` has a real stdin."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pacore_lab.errors import require_count
from pacore_lab.grading.code.expected import same_text, same_value
from pacore_lab.grading.code.pool import Pool, kinds_of
from pacore_lab.grading.code.worker import End, Fault, Job, Limits, Worker
from pacore_lab.types import Grade, Problem, Trajectory

VERSION = 1
"""Increases with every change that can change a verdict."""
_EXCEPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")
_LOAD = 0.1
"""A program that waited for a CPU for more than this share of its wall limit was slow through no fault of its own."""
_STOPPED = {"wall": "time limit", "cpu": "time limit", "threads": "process limit", "files": "file limit"}


def code_of(text: str) -> str | None:
    """The text between the last two lines that contain ``` (LiveCodeBench's rule); None if that is empty."""
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if "```" in line]
    code = "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) > 1 else ""
    return code if code.strip() else None


@dataclass(frozen=True, kw_only=True)
class _Tests:
    """A problem's tests, checked. Raises ValueError naming the malformed test."""

    jobs: tuple[tuple[str, str, str | None], ...]  # kind of run, input, function
    expected: tuple[Any, ...]  # text, or the value that a function returns

    @classmethod
    def of(cls, reference: Mapping[str, Any], script: str, call: str) -> _Tests:
        jobs, expected = [], []
        for number, test in enumerate(reference["tests"], 1):
            if test["testtype"] != "functional":
                jobs.append((script, test["input"], None))
                expected.append(test["output"])
                continue
            name = reference.get("fn_name")
            if not name:
                raise ValueError(f"test {number} calls a function, and the problem has no fn_name")
            try:
                expected.append(json.loads(test["output"]))
            except ValueError as error:
                raise ValueError(f"the output of test {number} is not JSON") from error
            jobs.append((call, test["input"], name))
        return cls(jobs=tuple(jobs), expected=tuple(expected))


@dataclass(frozen=True, kw_only=True)
class _CodeGrader:
    """What both graders share. Reads `problem.reference["tests"]` ({"input", "output", "testtype"}) and "fn_name".

    score: "all" gives 1.0 if every test passes and stops at the first failure; "share" runs every test and gives the
    share that pass.
    timeout: seconds of CPU per test. wall_timeout: seconds per test in all; a program that reaches it because it lacked
    a CPU is run once more, with no other program beside it.
    memory_mb: address space of a program. output_mb: limit on its output and on each file it writes.
    workers: processes that run programs; None for one per CPU core.
    sandbox: "auto" takes the first that works of bubblewrap, unshare and landlock (`sandbox.py`).
    allow_unsafe: run programs with limits only if no sandbox works.
    Raises ValueError for arguments out of range, and ConfigError in `start` if no sandbox works.
    """

    score: str = "all"
    timeout: float = 6.0
    wall_timeout: float = 24.0
    memory_mb: int = 2048
    output_mb: int = 16
    workers: int | None = None
    sandbox: str = "auto"
    allow_unsafe: bool = False
    _pool: Pool = field(init=False, repr=False, compare=False)
    _limits: Limits = field(init=False, repr=False, compare=False)

    comparable: ClassVar[bool] = False
    _name: ClassVar[str]
    _script: ClassVar[str]
    _call: ClassVar[str]

    def __post_init__(self) -> None:
        if self.score not in ("all", "share"):
            raise ValueError(f'grader.score is {self.score!r}; give "all" or "share"')
        if not 0 < self.timeout <= self.wall_timeout:
            raise ValueError(
                f"grader.timeout is {self.timeout} and grader.wall_timeout {self.wall_timeout}; "
                "give seconds above 0, and at least as much wall time as CPU time"
            )
        require_count("grader.memory_mb", self.memory_mb, least=128)
        require_count("grader.output_mb", self.output_mb)
        if self.workers is not None:
            require_count("grader.workers", self.workers)
        limits = Limits(
            cpu=float(self.timeout),
            wall=float(self.wall_timeout),
            memory_bytes=self.memory_mb << 20,
            output_bytes=self.output_mb << 20,
        )
        kinds = kinds_of(self.sandbox, self.allow_unsafe)
        object.__setattr__(self, "_limits", limits)
        object.__setattr__(self, "_pool", Pool(size=self.workers or _cores(), kinds=kinds, limits=limits))

    @property
    def version(self) -> str:
        limits = f"{self.timeout:g} s CPU, {self.wall_timeout:g} s, {self.memory_mb} MB, output {self.output_mb} MB"
        runs = f"Python {platform.python_version()}, sandbox {self._pool.kind or 'not started'}"
        return f"{self._name} {VERSION}, score {self.score}, {runs}, {limits}"

    async def start(self) -> None:
        await self._pool.start()

    def extract(self, trajectory: Trajectory) -> str | None:
        """The program; None if the trajectory failed or was truncated."""
        return None if trajectory.error or trajectory.truncated else code_of(trajectory.conclusion)

    async def classes(self, answers: Sequence[str | None]) -> list[int | None]:
        """Programs are not compared with one another."""
        return [None] * len(answers)

    async def grade(self, problem: Problem, trajectory: Trajectory) -> Grade:
        """details: "tests" in all, "ran", "passed", "share" (passed of all tests: a lower bound if not all ran),
        "all_passed" and "first_failure"."""
        code = self.extract(trajectory)
        if "tests" not in problem.reference:
            return Grade(score=None, answer=code, reason="no tests")
        if trajectory.error:
            return Grade(score=None, reason=trajectory.error)
        if trajectory.truncated:
            return Grade(score=0.0, reason="no answer: truncated at max_tokens")
        if code is None:
            return Grade(score=0.0, reason="no answer: no code between ``` fences")
        try:
            tests = await asyncio.to_thread(_Tests.of, problem.reference, self._script, self._call)
        except (ValueError, KeyError, TypeError) as error:
            return Grade(score=None, answer=code, reason=f"ungraded: bad tests: {error}")
        if not tests.jobs:
            return Grade(score=None, answer=code, reason="no tests")
        try:
            verdicts = await self._run_all(code, tests)
        except Fault as fault:
            return Grade(score=None, answer=code, reason=f"ungraded: {fault}")
        return self._grade_of(code, verdicts, len(tests.jobs))

    async def close(self) -> None:
        """End the workers; programs still running, and later ones, are ungraded. Safe to call twice."""
        await self._pool.close()

    def _grade_of(self, code: str, verdicts: Sequence[str], tests: int) -> Grade:
        passed = verdicts.count("")
        first = next((number for number, verdict in enumerate(verdicts, 1) if verdict), None)
        failure = f"{verdicts[first - 1]} on test {first}" if first else ""
        share = passed / tests
        details = {
            "passed": passed,
            "ran": len(verdicts),
            "tests": tests,
            "share": share,
            "all_passed": passed == tests,
            "first_failure": failure,
        }
        score = share if self.score == "share" else float(passed == tests)
        return Grade(score=score, answer=code, reason=failure, details=details)

    async def _run_all(self, code: str, tests: _Tests) -> list[str]:
        """The failure of each test that ran, "" for a pass. Raises Fault."""
        verdicts: list[str] = []
        while len(verdicts) < len(tests.jobs):
            async with self._pool.worker() as worker:
                again = await self._run_some(worker, code, tests, verdicts)
            if again:
                mode, text, function = tests.jobs[len(verdicts)]
                async with self._pool.worker(alone=True) as worker:
                    end = await worker.run(Job(mode=mode, code=code, input=text, function=function), self._limits)
                verdicts.append(await self._judge(end, mode, tests.expected[len(verdicts)]))
            if verdicts and verdicts[-1] and self.score == "all":
                break
        return verdicts

    async def _run_some(self, worker: Worker, code: str, tests: _Tests, verdicts: list[str]) -> bool:
        """Continue the tests on one worker. True if the next test has to be run again, alone."""
        for (mode, text, function), expected in list(zip(tests.jobs, tests.expected, strict=True))[len(verdicts) :]:
            try:
                end = await worker.run(Job(mode=mode, code=code, input=text, function=function), self._limits)
            except Fault:  # perhaps not this program's fault
                return True
            if self._unlucky(end):
                return True
            verdicts.append(await self._judge(end, mode, expected))
            if not worker.usable or (verdicts[-1] and self.score == "all"):
                return False
        return False

    def _unlucky(self, end: End) -> bool:
        """The program lacked a CPU until its wall time was up, or another process killed it (out of memory)."""
        if end.stopped == "wall":
            return end.cpu <= self.timeout and end.waited > _LOAD * self.wall_timeout
        return end.status == -signal.SIGKILL and not end.stopped and end.cpu <= self.timeout

    async def _judge(self, end: End, mode: str, expected: Any) -> str:
        """What is wrong with a test's output, "" for a pass. Raises Fault if the program never entered the sandbox."""
        if not end.note.startswith("+") and not end.stopped:
            raise Fault(f"the sandbox was not entered: {end.note or 'no reason given'}")
        if failure := _failure(end, mode, self._limits):
            return failure
        text = end.output.decode("utf-8", "replace")
        same = same_text if isinstance(expected, str) and mode == self._script else same_value
        if len(text) > 100_000:  # too long to compare on the event loop
            return "" if await asyncio.to_thread(same, text, expected) else "wrong answer"
        return "" if same(text, expected) else "wrong answer"


def _failure(end: End, mode: str, limits: Limits) -> str:
    """Why a program gave no output to compare, "" if it gave one. Short and of few kinds, so that it can be counted."""
    if end.stopped:
        return _STOPPED.get(end.stopped, "stopped")
    if end.cpu > limits.cpu:
        return "time limit"
    if end.status == -signal.SIGXFSZ or len(end.output) >= limits.output_bytes:
        return "output limit"
    note = end.note.removeprefix("+")
    if note == "MemoryError":
        return "memory"
    if end.status < 0:
        return f"runtime error: {_signal(-end.status)}"
    if note and note != "end":
        return f"runtime error: {note if _EXCEPTION.fullmatch(note) else 'unknown'}"
    if end.status:
        return "runtime error: exit status"
    return "" if note or mode == "script" else "runtime error: exit"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class LcbOfficial(_CodeGrader):
    """Comparable to LiveCodeBench's runner (lcb_runner/evaluation/testing_util.py; arXiv 2403.07974).

    The same prelude, in-process stdin and comparison (`inside/program.py` lists its limits): correct programs that
    iterate over sys.stdin, or read lines from sys.stdin.buffer or open(0), fail here as they do there. Three things
    differ: every test gets a fresh process, so nothing carries over between tests; time is CPU time; memory is limited.
    """

    _name = "lcb_official"
    _script = "wrapped"
    _call = "strict call"


@dataclass(frozen=True, kw_only=True)
class LcbSubprocess(_CodeGrader):
    """Programs run as Python runs a file, with a real stdin and stdout, after LiveCodeBench's prelude of imports.

    A program must exit with status 0. Tuples in a function's result count as lists at any depth. Outputs are compared
    as by `LcbOfficial`. Regrading a run with the other grader lists where the two disagree.
    """

    _name = "lcb_subprocess"
    _script = "script"
    _call = "call"
