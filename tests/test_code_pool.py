"""The workers of the code graders: what is run again, what is run alone, and that all of them end."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pacore_lab.grading.code import LcbSubprocess, pool
from pacore_lab.grading.code.worker import End, Fault, Job, Limits
from tests.sandboxes import DEAF, DOUBLE, RIGHT, SANDBOXES, WORKING, deaf, graded, needs_sandbox, soon, zygotes
from tests.waiting import until

ROOT = Path(__file__).parents[1]


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
from tests.sandboxes import DEAF, DOUBLE, deaf, graded
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
