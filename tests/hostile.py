"""What hostile programs are judged by: a grader in each sandbox, and the processes and files that they left behind."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from pacore_lab.grading.code import LcbSubprocess
from tests.sandboxes import SANDBOXES, WORKING

MARK = f"pacore-hostile-{uuid.uuid4().hex}"
FOLDERS = ["/", "/tmp", "/var/tmp", "/dev/shm", "/dev", "/run", "/etc", "/usr", str(Path.home()), os.getcwd()]
FOLDERS += [tempfile.gettempdir(), os.path.dirname(os.__file__), "/proc/self", "/sandbox", "/sandbox/inside"]
REFUSED = r"runtime error: (PermissionError|OSError|BlockingIOError)"
TRY = "def attempt(f, *a, **k):\n    try: return f(*a, **k)\n    except BaseException: return None\n"


def strays() -> set[int]:
    """Processes of our sandboxes, and of programs: a fork keeps the command line of its zygote."""
    found = set()
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if ("inside.zygote" in line and not others(process)) or MARK in line:
                found.add(process.pid)
        except psutil.Error:
            pass
    return found


def others(process: psutil.Process) -> bool:
    """Whether it belongs to another run of these tests, or of the lab."""
    parents = [parent.pid for parent in process.parents()]
    return os.getpid() not in parents and any("python" in psutil.Process(pid).name() for pid in parents)


def files() -> list[str]:
    """Files with our mark in the places where programs have tried to leave some."""
    return [
        f"{folder}/{name}" for folder in FOLDERS if os.path.isdir(folder) for name in os.listdir(folder) if MARK in name
    ]


def every_sandbox() -> Iterator[Any]:
    """All kinds of sandbox; those beside the one that graders take here are slow."""
    for kind in SANDBOXES:
        yield kind if kind.values == (WORKING,) else pytest.param(*kind.values, marks=[*kind.marks, pytest.mark.slow])


@asynccontextmanager
async def hostile_grader(kind: str) -> AsyncIterator[LcbSubprocess]:
    """A small and impatient grader, whose sandboxes are all gone soon after it is closed."""
    made = LcbSubprocess(sandbox=kind, workers=1, timeout=1, wall_timeout=3, memory_mb=512, output_mb=4)
    before = strays()
    await made.start()
    yield made
    await made.close()
    ended = time.monotonic()
    while strays() - before and time.monotonic() < ended + 20:  # the kernel is taking them down
        await asyncio.sleep(0.05)
    assert strays() <= before
