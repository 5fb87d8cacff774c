"""Which sandboxes work here, short problems for programs, and which sandboxes are running."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pacore_lab.errors import ConfigError
from pacore_lab.grading.code import LcbSubprocess
from pacore_lab.grading.code.sandbox import KINDS
from pacore_lab.types import Grade, Problem
from tests.doubles import trajectory, user


def works(kind: str) -> str:
    """Why a kind of sandbox does not work on this machine, "" where it does."""

    async def start() -> str:
        grader = LcbSubprocess(sandbox=kind, workers=1)
        try:
            await grader.start()
        except ConfigError as error:
            return str(error)
        finally:
            await grader.close()
        return ""

    return asyncio.run(start())


BROKEN = {kind: reason for kind in KINDS if (reason := works(kind))}
SANDBOXES = [pytest.param(k, marks=pytest.mark.skipif(k in BROKEN, reason=BROKEN.get(k, ""))) for k in KINDS]
WORKING = next((kind for kind in KINDS if kind not in BROKEN), None)
needs_sandbox = pytest.mark.skipif(WORKING is None, reason=f"no sandbox works here: {BROKEN}")


def stdin_problem(*tests: tuple[str, str]) -> Problem:
    listed = [{"input": given, "output": wanted, "testtype": "stdin"} for given, wanted in tests]
    return Problem(id="p", messages=user("q"), reference={"tests": listed, "fn_name": None})


def call_problem(name: str, *tests: tuple[str, str]) -> Problem:
    listed = [{"input": given, "output": wanted, "testtype": "functional"} for given, wanted in tests]
    return Problem(id="p", messages=user("q"), reference={"tests": listed, "fn_name": name})


DOUBLE = stdin_problem(("3\n", "6\n"), ("5\n", "10\n"))


async def graded(grader: Any, problem: Problem, code: str) -> Grade:
    return await grader.grade(problem, trajectory(f"<think>hm</think>Here:\n```python\n{code}\n```\nDone."))


RIGHT = "print(2 * int(input()))"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


def zygotes(parent: int | None = None) -> list[psutil.Process]:
    """Sandboxes below a process, ours by default."""
    found = []
    for child in psutil.Process(parent).children(recursive=True):
        try:
            if "inside.zygote" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            pass
    return found


def deaf() -> list[psutil.Process]:
    """Those among them that ignore SIGTERM: programs that begin with `DEAF` and are past that."""
    found = []
    for process in zygotes():
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
            if ignored >> (signal.SIGTERM - 1) & 1:
                found.append(process)
    return found


def soon(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()
