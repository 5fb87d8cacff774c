"""Grading: no model text hangs the run, kills it, or gets a wrong 0, and no process is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pacore_lab.grading import MathGrader
from pacore_lab.grading.answers import last_box
from pacore_lab.grading.exact import read
from pacore_lab.types import Grade
from tests.test_grading import NESTED, grade

ROOT = Path(__file__).parents[1]
HANGS = "9^{9^{9}}"


def workers():
    """Living grader processes of this one."""
    found = []
    for child in psutil.Process().children():
        try:
            if "worker.py" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:  # reaped meanwhile
            pass
    return found


@pytest.mark.parametrize(
    "text",
    [r"\boxed{" * 10**6, "{" * 10**6 + r"\boxed{", r"\boxed{" * 3 * 10**5 + "}" * 3 * 10**5, "\\" * 10**6 + "boxed"],
    ids=["boxes", "braces", "nested", "backslashes"],
)
def test_extraction_is_linear(text):
    """A quadratic scan of a million openings takes hours; this bound is generous for a busy machine."""
    start = time.monotonic()
    last_box(text)
    assert time.monotonic() - start < 10


HOSTILE = [
    "9" * 10**6,
    "$" * 10**6,
    r"\text{" * 10**6,
    " " * 10**6,
    "9" * 3999,
    "5 " + "aa" * 1900 + "9",
    "a-" * 1900 + "!",
]
HOSTILE += [",000" * 999, "1" + ",000" * 990, r"\frac{" * 600, "5 ab" + "^2" * 1000 + "!", "1e9999", NESTED]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_reading_is_quick(text):
    start = time.monotonic()
    read(text)
    assert time.monotonic() - start < 2


@pytest.fixture
async def hasty():
    grader = MathGrader(timeout=1)
    yield grader
    await grader.close()


async def test_a_hostile_answer_is_ungraded_and_delays_nobody(hasty):
    assert (await grade(hasty, "2", r"\sqrt{4}")).score == 1.0  # the worker's start is not part of the time below
    ticks, start = 0, time.monotonic()
    hostile = asyncio.gather(*(grade(hasty, "5", HANGS) for _ in range(20)))
    while not hostile.done():
        await asyncio.sleep(0.05)
        ticks += 1
    for result in await hostile:
        assert result == Grade(score=None, answer=HANGS, reason="ungraded: grader timed out after 1 s")
    assert time.monotonic() - start < 5, "the same hostile answer was tried again and again"
    assert ticks > 5, "the event loop was blocked"
    assert await hasty.classes([HANGS, "5", HANGS, r"\sqrt2"]) == [0, 1, 0, 2]
    assert (await grade(hasty, "3", r"\sqrt{9}")).score == 1.0
    assert len(workers()) <= 2, "a killed worker was not reaped"  # this one's and the shared one's


async def test_a_worker_that_dies_is_replaced():
    grader = MathGrader(timeout=61)  # graders of the same settings share their workers
    before = {worker.pid for worker in workers()}

    def own_workers():
        return [worker for worker in workers() if worker.pid not in before]

    try:
        assert (await grade(grader, "2", r"\sqrt{4}")).score == 1.0
        own_workers()[0].kill()  # idle: nothing is lost
        assert (await grade(grader, "3", r"\sqrt{9}")).score == 1.0
        pending = asyncio.create_task(grade(grader, "5", HANGS))
        while not pending.done():  # at work, and its successor too
            await asyncio.sleep(0.3)
            for worker in own_workers():
                worker.kill()
        assert await pending == Grade(score=None, answer=HANGS, reason="ungraded: grader process died")
        assert (await grade(grader, "4", r"\sqrt{16}")).score == 1.0
        pending = [asyncio.create_task(grade(grader, "5", f"{HANGS}+{i}")) for i in range(3)]
        await asyncio.sleep(0.3)
    finally:
        await grader.close()
    for result in await asyncio.gather(*pending):
        assert (result.score, result.reason) == (None, "ungraded: grader was closed")
    assert {worker.pid for worker in workers()} <= before, "a worker outlived close"
    await grader.close()


def test_no_worker_outlives_a_killed_parent():
    """Even one stuck in a long computation, which no end of file and no signal handler would reach."""
    script = """
import asyncio, psutil
from tests.test_grading_pool import HANGS, MathGrader, grade, workers
async def main():
    grader = MathGrader(timeout=600)
    await grade(grader, "2", r"\\sqrt{4}")
    stuck = asyncio.create_task(grade(grader, "5", HANGS))
    await asyncio.sleep(0.3)
    print(workers()[0].pid, flush=True)
    await stuck
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker is an orphan"
        time.sleep(0.05)


def test_out_of_memory_is_not_an_answer():
    """math-verify's own `except Exception` would have made it "not equal", a silent 0."""
    script = """
from pacore_lab.grading import worker
import math_verify.grader, math_verify.parser
def exhausted(*args, **kwargs): raise MemoryError
request = {"gold": "x^2+2x+1", "answer": "(x+1)^2", "mutual": True}
parse, simplify = math_verify.parser.latex2sympy, math_verify.grader.simplify
worker.let_memory_errors_through()
math_verify.grader.simplify = exhausted
print(worker.reply(request))
math_verify.grader.simplify = simplify
print(worker.reply(request))
math_verify.parser.latex2sympy = exhausted
worker.let_memory_errors_through()
print(worker.reply({**request, "answer": "(x+2)^2"}))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    failed = "{'error': 'grader ran out of memory'}"
    assert done.stdout.splitlines() == [failed, "{'equal': True}", failed]


@pytest.mark.parametrize("setting", [{"timeout": 0}, {"workers": 0}, {"memory_mb": 100}])
def test_bad_settings_are_refused_under_their_key(setting):
    with pytest.raises(ValueError, match=rf"^grader\.{next(iter(setting))} is "):
        MathGrader(**setting)
