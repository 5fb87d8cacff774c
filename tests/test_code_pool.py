"""The workers of the code graders: which sandbox is taken, what is run again, and that all of them end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pacore_lab.errors import ConfigError
from pacore_lab.grading.code import LcbOfficial, LcbSubprocess, pool, sandbox
from pacore_lab.grading.code.inside.kernel import seccomp_filter
from pacore_lab.grading.code.worker import End, Fault, Job, Limits
from tests.test_code import BROKEN, DOUBLE, SANDBOXES, WORKING, graded, needs_sandbox
from tests.waiting import until

ROOT = Path(__file__).parents[1]
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


@pytest.mark.parametrize("kind", SANDBOXES)
async def test_the_version_names_the_sandbox(kind: str) -> None:
    grader = LcbOfficial(sandbox=kind, workers=1, timeout=2.5)
    await grader.start()
    assert f"sandbox {kind}" in grader.version
    assert grader.version.startswith("lcb_official 1, score all, Python 3.")
    assert "2.5 s CPU" in grader.version
    await grader.close()
    await grader.close()
    assert soon(lambda: not zygotes())


async def test_without_a_sandbox_it_refuses_and_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(kind: str) -> list[str]:
        return [sys.executable, "-c", f"import sys; sys.exit('no {kind} today')"]

    monkeypatch.setattr("pacore_lab.grading.code.worker.command", fails)
    grader = LcbOfficial(workers=1)
    with pytest.raises(ConfigError, match=r"bubblewrap: no bubblewrap today.*grader.allow_unsafe=true"):
        await grader.start()
    await grader.close()


async def test_allow_unsafe_is_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sandbox.command
    monkeypatch.setattr(
        "pacore_lab.grading.code.worker.command", lambda kind: real(kind) if kind == "none" else ["/bin/false"]
    )
    grader = LcbSubprocess(workers=1, allow_unsafe=True, timeout=1, wall_timeout=3, memory_mb=512)
    assert (await graded(grader, DOUBLE, RIGHT)).score == 1.0
    assert "sandbox none" in grader.version
    code = "import os, time\nif os.fork() == 0: time.sleep(1000)\nwhile True: pass"
    assert (await graded(grader, DOUBLE, code)).reason == "time limit on test 1"
    assert (await graded(grader, DOUBLE, "x = bytearray(1 << 40)")).reason == "memory on test 1"
    assert soon(lambda: len(zygotes()) == 1)
    await grader.close()


@needs_sandbox
async def test_without_bubblewrap_the_next_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacore_lab.grading.code.sandbox.shutil.which", lambda name: None)
    grader = LcbSubprocess(workers=1)
    if {"unshare", "landlock"} <= set(BROKEN):
        with pytest.raises(ConfigError, match="bwrap is not installed"):
            await grader.start()
    else:
        assert (await graded(grader, DOUBLE, RIGHT)).score == 1.0
        assert "bubblewrap" not in grader.version
    await grader.close()


@needs_sandbox
async def test_a_killed_worker_is_replaced() -> None:
    grader = LcbSubprocess(workers=1)
    assert (await graded(grader, DOUBLE, RIGHT)).score == 1.0
    for process in zygotes():
        process.kill()
    assert (await graded(grader, DOUBLE, RIGHT)).score == 1.0
    await grader.close()


@needs_sandbox
@pytest.mark.parametrize("kind", SANDBOXES)
async def test_closing_ends_what_runs(kind: str) -> None:
    """A grade under way becomes ungraded at once; nothing waits for the program's own end."""
    grader = LcbSubprocess(sandbox=kind, workers=1, timeout=60, wall_timeout=100)
    await grader.start()
    grading = asyncio.create_task(graded(grader, DOUBLE, f"{DEAF}while True: pass"))
    waiting = asyncio.create_task(graded(grader, DOUBLE, RIGHT))
    await until(deaf)
    began = time.monotonic()
    await grader.close()
    for task in (grading, waiting):
        grade = await task
        assert grade.score is None
        assert grade.reason.startswith("ungraded: ")
    assert time.monotonic() - began < 20
    assert soon(lambda: not zygotes())


@needs_sandbox
async def test_a_cancelled_grade_leaves_no_answer_for_the_next() -> None:
    grader = LcbSubprocess(workers=1)
    await grader.start()
    for _ in range(5):
        grading = asyncio.create_task(graded(grader, DOUBLE, f"{DEAF}import time\ntime.sleep(1000)\nprint(7)"))
        await until(deaf)
        grading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await grading
        assert (await graded(grader, DOUBLE, RIGHT)).score == 1.0
        await until(lambda: not deaf())
    await grader.close()
    assert soon(lambda: not zygotes())


LAB = """
import asyncio, sys
from pacore_lab.grading.code import LcbSubprocess
from tests.test_code import DOUBLE, graded
from tests.test_code_pool import DEAF, deaf
from tests.waiting import until

async def main():
    grader = LcbSubprocess(sandbox=sys.argv[1], workers=2, timeout=500, wall_timeout=600)
    await grader.start()
    tasks = [asyncio.create_task(graded(grader, DOUBLE, f"{DEAF}while True: pass")) for _ in range(2)]
    await until(lambda: len(deaf()) == 2)
    print("busy", flush=True)
    await asyncio.gather(*tasks)

asyncio.run(main())
"""


@needs_sandbox
@pytest.mark.parametrize("kind", SANDBOXES)
def test_a_killed_lab_leaves_nothing_running(kind: str) -> None:
    with subprocess.Popen([sys.executable, "-c", LAB, kind], cwd=ROOT, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == "busy\n"
        below = zygotes(lab.pid)
        assert len(below) >= 4  # two zygotes, two programs
        lab.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(below, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE], gone


AS_NOBODY = """
import asyncio, os, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
from pacore_lab.grading.code import LcbSubprocess
from tests.test_code import DOUBLE, graded

async def main():
    for kind in ("bubblewrap", "unshare", "landlock"):
        grader = LcbSubprocess(sandbox=kind, workers=1, timeout=1, wall_timeout=3)
        try:
            await grader.start()
            right = await graded(grader, DOUBLE, "print(2 * int(input()))")
            bomb = await graded(grader, DOUBLE, "import os\\nwhile True: os.fork()")
            write = await graded(grader, DOUBLE, "open('/var/tmp/pacore-nobody', 'w')")
            print(kind, right.score, bomb.score, write.score)
        except Exception as error:
            print(kind, error)
        await grader.close()

asyncio.run(main())
"""


@needs_sandbox
@pytest.mark.skipif(os.getuid() != 0, reason="the other tests run as an ordinary user already")
def test_an_ordinary_user_gets_the_same() -> None:
    readable = [sys.prefix, sys.base_prefix, str(ROOT)]
    shut = [path for path in readable for part in [Path(path), *Path(path).parents] if not part.stat().st_mode & 1]
    if shut:
        pytest.skip(f"an ordinary user cannot read {shut[0]}")
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], cwd=ROOT, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        kind, *scores = line.split()
        assert scores == ["1.0", "0.0", "0.0"] or kind != WORKING, done.stdout + done.stderr


class Stage:
    """A pool whose workers give prepared ends, and note who ran beside whom."""

    def __init__(self, ends: list[End | Exception]) -> None:
        self.ends = ends
        self.alone: list[bool] = []

    def worker(self, *, alone: bool = False) -> Any:
        stage = self

        class Context:
            usable = True

            async def __aenter__(self) -> Context:
                return self

            async def __aexit__(self, *error: object) -> None: ...

            async def run(self, job: Job, limits: Limits) -> End:
                stage.alone.append(alone)
                end = stage.ends.pop(0)
                if isinstance(end, Exception):
                    raise end
                return end

        return Context()


def end(**changes: Any) -> End:
    usual = {"stopped": "", "status": 0, "cpu": 0.1, "wall": 0.1, "waited": 0.0, "note": "+end", "output": b"6"}
    return End(**(usual | changes))


STARVED = end(stopped="wall", status=-9, cpu=1.0, wall=24.0, waited=20.0, note="+", output=b"")
SLEPT = end(stopped="wall", status=-9, cpu=0.1, wall=24.0, waited=0.01, note="+", output=b"")
SHOT = end(status=-9, cpu=0.2, note="+", output=b"")
TEN = end(output=b"10")


@pytest.mark.parametrize(
    ("ends", "score", "reason", "alone"),
    [
        ([end(), TEN], 1.0, "", [False, False]),
        ([STARVED, end(), TEN], 1.0, "", [False, True, False]),
        ([STARVED, STARVED], 0.0, "time limit on test 1", [False, True]),
        ([SLEPT], 0.0, "time limit on test 1", [False]),
        ([end(), SHOT, TEN], 1.0, "", [False, False, True]),
        ([SHOT, SHOT], 0.0, "runtime error: SIGKILL on test 1", [False, True]),
        ([end(stopped="cpu", status=-9, cpu=6.0, note="+")], 0.0, "time limit on test 1", [False]),
        ([Fault("it died"), end(), TEN], 1.0, "", [False, True, False]),
        ([Fault("it died"), Fault("it died again")], None, "ungraded: it died again", [False, True]),
        ([end(note="no Landlock", status=1)], None, "ungraded: the sandbox was not entered: no Landlock", [False]),
    ],
)
async def test_what_load_or_a_fault_may_have_done_is_run_again_alone(
    ends: list[End | Exception], score: float | None, reason: str, alone: list[bool]
) -> None:
    """A program that was kept from the CPU, or lost its sandbox, is not wrong for it; one that slept is."""
    grader, stage = LcbSubprocess(), Stage(list(ends))
    object.__setattr__(grader, "_pool", stage)
    grade = await graded(grader, DOUBLE, RIGHT)
    assert (grade.score, grade.reason, stage.alone) == (score, reason, alone)


@needs_sandbox
async def test_alone_is_alone() -> None:
    limits = Limits(cpu=5, wall=20, memory_bytes=1 << 30, output_bytes=1 << 20)
    assert WORKING is not None
    workers = pool.Pool(size=3, kinds=(WORKING,), limits=limits)
    running, peak, together = 0, 0, []

    async def use(alone: bool) -> None:
        nonlocal running, peak
        async with workers.worker(alone=alone):
            running += 1
            peak = max(peak, running)
            if alone:
                await asyncio.sleep(0.01)  # in which nobody may come
                together.append(running)
            else:
                await until(lambda: peak > 1)
            running -= 1

    await asyncio.gather(*(use(n % 4 == 0) for n in range(24)))
    assert together == [1] * 6
    assert 1 < peak <= 3
    await workers.close()


def test_the_sandbox_shows_no_home_and_no_outputs() -> None:
    shown = sandbox.readable()
    for path in (str(Path.home()), str(ROOT), str(ROOT / "outputs"), "/etc", "/var", "/home", "/root"):
        assert path not in shown
    assert any(Path(sys.prefix).is_relative_to(path) for path in shown)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_filter_is_whole_instructions_that_end_in_a_verdict(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    program = seccomp_filter(7)
    assert len(program) % 8 == 0
    assert program[-8:-6] == b"\x06\x00"
    for at in range(0, len(program), 8):  # no jump leads beyond the end
        assert at + 8 * (1 + max(program[at + 2], program[at + 3])) < len(program) or program[at] == 6


def test_an_unknown_machine_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    with pytest.raises(OSError, match="pdp11"):
        seccomp_filter(7)
