"""Grading: no model text hangs the run, kills it, or gets a wrong 0, and no process is left behind."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pacore_lab.errors import ConfigError
from pacore_lab.grading import MathGrader
from pacore_lab.grading.answers import last_box
from pacore_lab.grading.cache import Cache
from pacore_lab.grading.exact import read
from pacore_lab.grading.readers import Pool, Worker
from pacore_lab.types import Grade
from tests.boxed import NESTED, grade
from tests.waiting import until

ROOT = Path(__file__).parents[1]
HANGS = "9^{9^{9}}"


def workers():
    """Living grader processes of this one."""
    found = []
    for child in psutil.Process().children():
        try:
            if "reader_process.py" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
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


async def test_a_worker_that_dies_is_replaced(monkeypatch):
    ask, asked = Worker.ask, []

    def counted(worker, questions):
        ask(worker, questions)
        asked.append(questions)

    monkeypatch.setattr(Worker, "ask", counted)
    grader = MathGrader(timeout=61)  # graders of the same settings share their workers
    before = {worker.pid for worker in workers()}

    def own_workers():
        return [worker for worker in workers() if worker.pid not in before]

    try:
        assert (await grade(grader, "2", r"\sqrt{4}")).score == 1.0
        own_workers()[0].kill()  # idle: nothing is lost
        assert (await grade(grader, "3", r"\sqrt{9}")).score == 1.0
        asked.clear()
        pending = asyncio.create_task(grade(grader, "5", HANGS))
        for turn in (1, 2):  # at work, and its successor too
            await until(lambda turn=turn: len(asked) == turn)
            for worker in own_workers():
                worker.kill()
        assert await pending == Grade(score=None, answer=HANGS, reason="ungraded: grader process died")
        assert (await grade(grader, "4", r"\sqrt{16}")).score == 1.0
        asked.clear()
        pending = [asyncio.create_task(grade(grader, "5", f"{HANGS}+{i}")) for i in range(3)]
        await until(lambda: asked)
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
from tests.waiting import until
async def main():
    grader = MathGrader(timeout=600)
    await grade(grader, "2", r"\\sqrt{4}")
    (worker,) = workers()
    idle = worker.cpu_times().user
    stuck = asyncio.create_task(grade(grader, "5", HANGS))
    await until(lambda: worker.cpu_times().user > idle + 0.2)
    print(worker.pid, flush=True)
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
from pacore_lab.grading import reader_process
import math_verify.grader, math_verify.parser
def exhausted(*args, **kwargs): raise MemoryError
request = ["equal", "x^2+2x+1", "(x+1)^2", True]
parse, simplify = math_verify.parser.latex2sympy, math_verify.grader.simplify
reader_process.let_memory_errors_through()
math_verify.grader.simplify = exhausted
print(reader_process.reply(request))
math_verify.grader.simplify = simplify
print(reader_process.reply(request))
math_verify.parser.latex2sympy = exhausted
reader_process.let_memory_errors_through()
print(reader_process.reply(["equal", "x^2+2x+1", "(x+2)^2", True]))
print(reader_process.reply(["fingerprint", "(x+3)^2"]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    failed = "{'error': 'grader ran out of memory'}"
    assert done.stdout.splitlines() == [failed, "{'reply': True}", failed, failed]


async def test_one_hostile_answer_of_a_batch_costs_the_others_nothing(hasty):
    """It is killed and the rest are asked again; what it leaves is a class of its own."""
    answers = [r"\lfloor\sqrt{2}\rfloor", HANGS, "|x|+1", r"1+\left|x\right|", f"{HANGS}+1", HANGS]
    assert await hasty.classes(answers) == [0, 1, 2, 2, 3, 1]
    assert len(workers()) <= 2


async def test_many_hostile_answers_are_bounded(hasty):
    """512 of them would cost 512 timeouts; after eight the rest of the batch are compared as text."""
    hostile = [f"{HANGS}+{i}" for i in range(40)]
    start = time.monotonic()
    assert await hasty.classes([*hostile, "2", r"\sqrt{4}"]) == [*range(40), 40, 40]
    assert time.monotonic() - start < 60
    assert len(workers()) <= 2


DEEP = [r"\sqrt{" * 1300 + "2" + "}" * 1300, "(" * 1900 + "1" + ")" * 1900, r"\frac{" * 600 + "1" + "}{2}" * 600]
DEEP += ["[" * 1900 + "1,2" + "]" * 1900, "((x^2000)^2000)^2000", "(((9^999)^999)^999)^999", "2^{2^{2^{2^{2^{2}}}}}"]
DEEP += ["1,2" * 1300, r"\pm " * 900 + "1", r"\{" * 900 + r"\}" * 900, r"1\cup" * 700 + "2", "x!" + "!" * 1000]
DEEP += ["500!^{2000}", r"\sin(10^{2000})", r"\binom{500}{250}^{2000}", "1/" * 90 + "0", "9" * 10**6, NESTED]


@pytest.mark.slow
@pytest.mark.parametrize("text", DEEP, ids=lambda text: text[:16])
async def test_deep_and_huge_answers_are_bounded(hasty, text):
    start = time.monotonic()
    result = await grade(hasty, "5", text)
    assert result.score == 0.0 or result.reason.startswith("ungraded: ")
    assert (await hasty.classes([text, "5", text, "5.0"])) == [0, 1, 0, 1]
    assert time.monotonic() - start < 30


async def test_what_math_verify_said_is_kept_on_disk(tmp_path, monkeypatch):
    path = tmp_path / "new" / "grades.sqlite"
    answers = [r"|x|+1", r"1+|x|", r"|x|+2"]
    first = MathGrader(timeout=62, cache=str(path))
    await first.start()
    assert not path.parent.exists()  # a run that is refused leaves nothing behind
    assert await first.classes(answers) == [0, 0, 1]
    assert (await grade(first, "|x|+3", "3+|x|")).score == 1.0
    await first.close()
    assert path.exists()
    second = MathGrader(timeout=63, cache=str(path))
    await second.start()

    def unexpected(*_):
        raise AssertionError("a worker was started for what is known")

    monkeypatch.setattr(Pool, "_take", unexpected)
    assert await second.classes(answers[::-1]) == [0, 1, 1]
    assert (await grade(second, "|x|+3", "3+|x|")).score == 1.0
    await second.close()
    await second.close()


async def test_timeouts_are_not_kept_on_disk(tmp_path):
    """A loaded machine is no property of an answer."""
    grader = MathGrader(timeout=2, cache=str(tmp_path / "grades.sqlite"))
    await grader.start()
    assert (await grade(grader, "5", HANGS)).score is None
    assert (await grade(grader, "|x|+1", "1+|x|")).score == 1.0
    await grader.close()
    with sqlite3.connect(tmp_path / "grades.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM replies").fetchone() == (1,)
    connection.close()


async def test_a_reply_of_another_version_is_not_used(tmp_path):
    path, question = str(tmp_path / "grades.sqlite"), ("equal", "1", "2", True)
    old, new = Cache(path, "math 1"), Cache(path, "math 2")
    old.open()
    new.open()  # several processes may
    old.put({question: True})
    assert (old.get([question]), new.get([question])) == ({question: True}, {})
    old.close()
    new.close()


@pytest.mark.parametrize("kind", ["folder", "no database", "no table of ours", "below a file"])
async def test_an_unusable_cache_is_refused_at_the_start(tmp_path, kind):
    path = tmp_path / "grades.sqlite"
    if kind == "folder":
        path.mkdir()
    elif kind == "no database":
        path.write_text("this is no database, and long enough to be sure of it" * 100)
    elif kind == "no table of ours":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE replies (other TEXT)")
        connection.close()
    else:
        path.write_text("")
        path = path / "grades.sqlite"
    grader = MathGrader(cache=str(path))
    with pytest.raises(ConfigError, match=r"^grader\.cache=.* cannot be used \(.*grader\.cache=null"):
        await grader.start()
    await grader.close()


async def test_a_cache_that_fails_in_mid_run_fails_no_grade(tmp_path):
    path = tmp_path / "grades.sqlite"
    grader = MathGrader(timeout=64, cache=str(path))
    await grader.start()
    assert (await grade(grader, "|x|+1", "1+|x|")).score == 1.0
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE replies")
    connection.close()
    assert (await grade(grader, "|x|+3", "3+|x|")).score == 1.0
    await grader.close()


@pytest.mark.parametrize("setting", [{"timeout": 0}, {"workers": 0}, {"memory_mb": 100}, {"cache": ""}])
def test_bad_settings_are_refused_under_their_key(setting):
    with pytest.raises(ValueError, match=rf"^grader\.{next(iter(setting))} is "):
        MathGrader(**setting)
