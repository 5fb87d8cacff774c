"""What no program reaches from any sandbox: the expected output, other processes, files, the network, the kernel."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from pacore_lab.grading.code import LcbOfficial, LcbSubprocess
from tests.hostile import REFUSED, TRY, every_sandbox, files, hostile_grader
from tests.sandboxes import DOUBLE, graded, stdin_problem

SECRET = f"SECRET-{uuid.uuid4().hex}"
LOOK = r"""
import gc, os, re, sys
found = set()
def look(data): found.update(re.findall(rb"SECRET-" + rb"[0-9a-f]{32}", data))
def read(path, begin=0, size=1 << 20):
    descriptor = attempt(os.open, path, os.O_RDONLY | os.O_NONBLOCK)
    if descriptor is not None:
        look(attempt(os.pread, descriptor, size, begin) or attempt(os.read, descriptor, size) or b"")
        os.close(descriptor)
for pid in {*PIDS, os.getpid(), os.getppid(), "self", *filter(str.isdigit, attempt(os.listdir, "/proc") or [])}:
    for name in ("environ", "cmdline", "fd/0", "fd/1", "fd/2", *(f"fd/{n}" for n in range(3, 20)), "root/etc/shadow"):
        read(f"/proc/{pid}/{name}")
    for line in attempt(lambda: open(f"/proc/{pid}/maps").readlines()) or []:
        begin, end = (int(n, 16) for n in line.split()[0].split("-"))
        if begin < 1 << 63: read(f"/proc/{pid}/mem", begin, min(end - begin, 1 << 24))
for path in PATHS: read(path)
for descriptor in range(4, 300): look(attempt(os.read, descriptor, 1 << 20) or b"")
look(repr(dict(os.environ)).encode())
frame = sys._getframe()
while frame:
    look(repr([v for v in frame.f_locals.values() if isinstance(v, (str, bytes, dict))]).encode())
    frame = frame.f_back
look(repr([o for o in gc.get_objects() if type(o) is dict and len(o) < 20][:5000]).encode())
print(*sorted(f.decode() for f in found))
"""


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert files() == []


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(every_sandbox()))
async def grader(request: pytest.FixtureRequest) -> AsyncIterator[LcbSubprocess]:
    async with hostile_grader(request.param) as made:
        yield made


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_expected_output_is_nowhere_to_be_found(
    grader: LcbSubprocess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in this process's memory or environment, not in files, not in what the program inherits."""
    monkeypatch.setenv("PACORE_TEST_KEY", SECRET)
    kept = tmp_path / "answers.json"
    kept.write_text(SECRET)
    paths = [str(kept), "/etc/shadow", "/etc/passwd", __file__, str(Path.home() / ".bash_history")]
    head = f"{TRY}PIDS = [1, {os.getpid()}, {os.getppid()}]\nPATHS = {paths!r}\n"
    patient = LcbSubprocess(sandbox=grader.sandbox, workers=1, timeout=20, wall_timeout=60)
    try:
        planted = await graded(patient, stdin_problem((SECRET, SECRET)), head + LOOK)
        assert planted.score == 1.0, planted.reason  # what is in the input it does find
        grade = await graded(patient, stdin_problem(("hello", SECRET)), head + LOOK)
        assert grade.reason == "wrong answer on test 1"
    finally:
        await patient.close()
    reads = f"{TRY}print(*(p for p in {paths!r} if attempt(lambda: open(p).read()) is not None))"
    assert (await graded(grader, stdin_problem(("", "")), reads)).score == 1.0


async def test_other_processes_are_out_of_reach(grader: LcbSubprocess) -> None:
    with subprocess.Popen(["sleep", "60"]) as victim:
        code = (
            f"import os, signal\n{TRY}for p in ({victim.pid}, 1, os.getppid()):\n"
            "    for s in (signal.SIGKILL, signal.SIGINT, signal.SIGSTOP): attempt(os.kill, p, s)\nprint('done')"
        )
        assert (await graded(grader, stdin_problem(("", "done")), code)).score == 1.0
        assert victim.poll() is None
        assert psutil.Process(victim.pid).status() != psutil.STATUS_STOPPED
        victim.kill()
    assert (await graded(grader, DOUBLE, "print(2 * int(input()))")).score == 1.0


async def test_nothing_is_removed(grader: LcbSubprocess, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    code = (
        f"import os, shutil\n{TRY}f = {str(tmp_path)!r}\nattempt(shutil.rmtree, f)\nattempt(os.remove, f + '/kept')\n"
        "attempt(os.chmod, f, 0)\nattempt(os.truncate, f + '/kept', 0)\nattempt(os.rename, f, f + '2')\n"
        "attempt(os.utime, f + '/kept', (1, 1))"
    )
    before = os.stat(tmp_path / "kept")
    await graded(grader, DOUBLE, code)
    after = os.stat(tmp_path / "kept")
    assert (after.st_mode, after.st_mtime, after.st_size) == (before.st_mode, before.st_mtime, 1)


async def test_no_connection_leaves_the_sandbox(grader: LcbSubprocess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        port = server.getsockname()[1]
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {port}))"
        assert re.match(REFUSED, (await graded(grader, DOUBLE, code)).reason)
        with pytest.raises(TimeoutError):
            server.accept()


async def test_system_calls_beyond_the_standard_library(grader: LcbSubprocess) -> None:
    """Numbers of x86_64; on another machine they name other calls, which must not succeed by accident either."""
    if os.uname().machine != "x86_64":
        pytest.skip("system call numbers of x86_64")
    calls = {
        "ptrace attach": (101, 16, "PARENT", 0, 0),
        "process_vm_readv": (310, "PARENT", 0, 0, 0, 0, 0),
        "pidfd_getfd": (438, 0, 0, 0),
        "unshare user": (272, 0x10000000),
        "clone user": (56, 0x10000000 | 17, 0, 0, 0, 0),
        "clone3": (435, 0, 0),
        "mount": (165, 0, 0, 0, 0, 0),
        "shmget": (29, 0, 1 << 30, 0o1600),
        "keyctl": (250, 0, -3, 1),
        "io_uring": (425, 1, 0),
        "userfaultfd": (323, 0),
        "bpf": (321, 0, 0, 0),
        "x32 getpid": (0x40000000 + 39,),
    }
    for name, (number, *arguments) in calls.items():
        code = (
            "import ctypes, os\nPARENT = os.getppid()\nlibc = ctypes.CDLL(None, use_errno=True)\n"
            f"r = libc.syscall({number}, {', '.join(str(a).strip(chr(34)) for a in arguments)})\n"
            "print('refused' if r == -1 and ctypes.get_errno() in (1, 38) else r)"
        )
        grade = await graded(grader, stdin_problem(("", "refused")), code)
        if name == "x32 getpid":
            assert grade.reason == "runtime error: SIGSYS on test 1"
        else:
            assert grade.score == 1.0, name


async def test_the_official_grader_is_as_safe(grader: LcbSubprocess) -> None:
    official = LcbOfficial(sandbox=grader.sandbox, workers=1, timeout=1, wall_timeout=3, memory_mb=512, output_mb=4)
    try:
        await _official(official)
    finally:
        await official.close()


async def _official(official: LcbOfficial) -> None:
    cases: dict[str, Any] = {
        "import os\nos._exit(0)": "runtime error: exit",
        "while True: print('x' * 10**6)": "memory|output limit|time limit",
        "import os\nos.fork()": "runtime error: TypeError",  # the runner's guard
        "import posix\nposix.fork()": REFUSED,
        "print('x' * 5_000_000)": "output limit|runtime error: OSError",
        "import sys\nsys.stdout.close()\nprint(6)": "wrong answer|()",
        "import sys\nsys.stdout = None": "wrong answer|runtime error",
    }
    for code, verdict in cases.items():
        reason = (await graded(official, DOUBLE, code)).reason
        assert re.match(verdict, reason), (code, reason)
        assert (await graded(official, DOUBLE, "print(2 * int(input()))")).score == 1.0
