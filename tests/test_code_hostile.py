"""Programs that mean harm, in every sandbox that works here: each is bounded in time, judged as what it is, and leaves
no process, no file and no trace for the next one."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from pacore_lab.grading.code import LcbSubprocess
from tests.hostile import FOLDERS, MARK, REFUSED, TRY, every_sandbox, files, hostile_grader, strays
from tests.sandboxes import DOUBLE, graded, stdin_problem
from tests.waiting import until

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


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert files() == []


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(every_sandbox()))
async def grader(request: pytest.FixtureRequest) -> AsyncIterator[LcbSubprocess]:
    async with hostile_grader(request.param) as made:
        yield made


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
