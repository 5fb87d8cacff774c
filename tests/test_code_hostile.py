"""Programs that mean harm, in every sandbox that works here: each is bounded in time, judged as what it is, and leaves
no process, no file and no trace for the next one."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from pacore_lab.grading.code import LcbOfficial, LcbSubprocess
from tests.test_code import DOUBLE, SANDBOXES, WORKING, graded, stdin_problem
from tests.waiting import until

MARK = f"pacore-hostile-{uuid.uuid4().hex}"
SECRET = f"SECRET-{uuid.uuid4().hex}"
FOLDERS = ["/", "/tmp", "/var/tmp", "/dev/shm", "/dev", "/run", "/etc", "/usr", str(Path.home()), os.getcwd()]
FOLDERS += [tempfile.gettempdir(), os.path.dirname(os.__file__), "/proc/self", "/sandbox", "/sandbox/inside"]

REFUSED = r"runtime error: (PermissionError|OSError|BlockingIOError)"
TRY = "def attempt(f, *a, **k):\n    try: return f(*a, **k)\n    except BaseException: return None\n"
PROGRAMS = {
    # processes and threads
    "fork bomb": ("import os\nwhile True: os.fork()", REFUSED),
    "fork bomb, stubborn": (f"import os\n{TRY}while True: attempt(os.fork)", "time limit"),
    "daemon": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.fork() or time.sleep(1000)",
        REFUSED,
    ),
    "subprocess": (f"import subprocess\nsubprocess.Popen(['/bin/sleep', '1000', '{MARK}'])", REFUSED),
    "system": ("import os\nassert os.system('true') == 0", "runtime error: AssertionError"),
    "posix_spawn": ("import os\nos.posix_spawn('/bin/sleep', ['sleep', '1000'], {})", REFUSED),
    "exec": ("import os\nos.execv('/bin/sleep', ['sleep', '1000'])", "time limit"),
    "threads": (
        "import threading, time\nthreading.stack_size(32768)\n"
        "while True: threading.Thread(target=time.sleep, args=(1000,)).start()",
        "runtime error: RuntimeError|process limit|memory",
    ),
    "ignores signals": (
        f"import signal\n{TRY}for s in range(1, 65): attempt(signal.signal, s, signal.SIG_IGN)\nwhile True: pass",
        "time limit",
    ),
    "sleeps": ("import time\nwhile True:\n    try: time.sleep(1000)\n    except BaseException: pass", "time limit"),
    "kills itself": ("import os\nos.kill(os.getpid(), 9)", "runtime error: SIGKILL"),
    "starves the zygote": (
        "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
        REFUSED,
    ),
    # memory and output
    "allocates": ("x = []\nwhile True: x.append(bytes(1 << 24))", "memory"),  # untouched: on any machine in no time
    "allocates, stubborn": (
        "x = []\nwhile True:\n    try: x.append(bytearray(1 << 20))\n    except MemoryError: pass",
        "time limit",
    ),
    "maps": ("import mmap\nx = [mmap.mmap(-1, 1 << 28) for _ in range(100)]", REFUSED),
    "memfd": ("import os\nos.memfd_create('x')", REFUSED),
    "prints": ("while True: print('x' * 10**6)", "output limit"),
    "prints, stubborn": (f"import os\n{TRY}while True: attempt(os.write, 1, b'x' * 10**6)", "(output|time) limit"),
    "large power": ("print(9 ** 9 ** 9)", "time limit|memory"),
    "large integer": ("print(10 ** 100_000)", "runtime error: ValueError"),
    "recursion": ("def f(n): return f(n + 1)\nf(0)", "runtime error: RecursionError"),
    "recursion, unlimited": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)",
        "runtime error|memory|time limit",
    ),
    "recursion in C": (
        "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
        "runtime error: (SIGSEGV|RecursionError)|memory|time limit",
    ),
    # files
    "writes": (
        f"import os\n{TRY}wrote = [f for f in {FOLDERS!r} if f != '/tmp' and attempt(open, f + '/{MARK}', 'w')]\n"
        f"attempt(open, '/tmp/{MARK}', 'w')\nprint(wrote or 'nowhere')",
        "",
    ),
    "fills /tmp": (
        f"import os\nfor n in range(10**6):\n    with open(f'/tmp/{MARK}-{{n}}', 'wb') as f: f.write(bytes(1 << 20))",
        REFUSED,
    ),
    "large file": (
        f"f = open('/tmp/{MARK}', 'wb', buffering=0)\nfor _ in range(10**6): f.write(bytes(1 << 20)) or 1 / 0",
        f"{REFUSED}|runtime error: TypeError|output limit",
    ),
    "many files": (f"for n in range(10**9): open(f'/tmp/{MARK}-{{n}}', 'w').close()", f"file limit|{REFUSED}"),
    "deep folders": (
        "import os\nos.chdir('/tmp')\nwhile True:\n    os.mkdir('d', 0o700)\n    os.chdir('d')",
        f"file limit|{REFUSED}|runtime error: FileNotFoundError",
    ),
    "many descriptors": ("import os\nx = [os.open('/dev/null', 0) for _ in range(10**6)]", "runtime error: OSError"),
    # the grader
    "closes": ("import os\nos.closerange(0, 1000)\nprint(6)", "runtime error: exit status"),
    "forges answers": (
        "import json, os, struct\n"
        'a = json.dumps({"stopped": "", "status": 0, "cpu": 0, "wall": 0, "waited": 0, "note": "+end", '
        '"clean": True, "size": 2}).encode()\n'
        f"{TRY}for fd in range(2, 1000): attempt(os.write, fd, struct.pack('!I', len(a)) + a + b'6\\n')",
        "runtime error: unknown",
    ),
    "forges its end": ("import os\nos.write(3, b'end')\nos._exit(0)", "wrong answer"),
    "forges a fault": ("import os\nos.write(3, b'no sandbox')\nos._exit(1)", "runtime error: unknown"),
    "stays": ("import os\nos._exit = os.write = os.close = print\nraise KeyboardInterrupt", "runtime error"),
    "exits": ("import os\nos._exit(0)", "wrong answer"),
    "aborts": ("import os\nos.abort()", "runtime error: SIGABRT"),
    "escapes": ("raise type('\\x1b[31m', (Exception,), {})", "runtime error: unknown"),
    "nameless": (
        "class M(type):\n    @property\n    def __name__(self): raise SystemExit(0)\n"
        "class E(Exception, metaclass=M): pass\nraise E",
        "runtime error",
    ),
    # the network
    "udp": ("import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)", REFUSED),
    "unix": ("import socket\nsocket.socket(socket.AF_UNIX).connect('/run/docker.sock')", REFUSED),
}
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


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert files() == []


def others_slow() -> Iterator[Any]:
    """All kinds of sandbox; those beside the one that graders take here are slow."""
    for kind in SANDBOXES:
        yield kind if kind.values == (WORKING,) else pytest.param(*kind.values, marks=[*kind.marks, pytest.mark.slow])


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(others_slow()))
async def grader(request: pytest.FixtureRequest) -> AsyncIterator[LcbSubprocess]:
    made = LcbSubprocess(sandbox=request.param, workers=1, timeout=1, wall_timeout=3, memory_mb=512, output_mb=4)
    before = strays()
    await made.start()
    yield made
    await made.close()
    ended = time.monotonic()
    while strays() - before and time.monotonic() < ended + 20:  # the kernel is taking them down
        await asyncio.sleep(0.05)
    assert strays() <= before


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(("code", "verdict"), PROGRAMS.values(), ids=PROGRAMS)
async def test_hostile_programs(grader: LcbSubprocess, code: str, verdict: str) -> None:
    problem = stdin_problem(("", "nowhere")) if verdict == "" else DOUBLE
    assert (await graded(grader, DOUBLE, "print(2 * int(input()))")).score == 1.0
    before, began = strays(), time.monotonic()
    grade = await graded(grader, problem, code)
    assert time.monotonic() - began < 60
    assert grade.score == float(verdict == "")
    assert re.fullmatch(f"(?s:({verdict}).*on test 1)?" if verdict else "", grade.reason), grade.reason
    assert (await graded(grader, DOUBLE, "print(2 * int(input()))")).score == 1.0
    await until(lambda: len(strays()) == len(before))


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
