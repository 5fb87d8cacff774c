"""Grades: what counts as an answer, why there is none, and what a grade warns of."""

import asyncio
import dataclasses
from pathlib import Path

import pytest
import yaml

from pacore_lab.grading import MathGrader, NoGrader
from pacore_lab.grading.doubts import MISSED, SEVERAL, TRUNCATED, UNCLOSED, UNFINISHED
from pacore_lab.types import Grade
from tests.boxed import problem, trajectory

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def grader():
    """One worker for the file; patient, since a busy machine is no hostile answer."""
    grader = MathGrader(timeout=60)
    yield grader
    asyncio.run(grader.close())


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (r"\boxed{5}", "5"),
        (r"\boxed{5} and then \boxed{ 6 }", "6"),
        (r"\fbox{5}", "5"),
        (r"so $\boxed 5$.", "5"),
        (r"so \boxed 1,234.", "1,234"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\\boxed{5}", "5"),
        (r"\boxed{5} or \boxed{6", "5"),
        (r"\boxed{5}, as asked in \boxed{}", "5"),
        (r"} \boxed{5} {", "5"),
        (r"\boxed{1</think> \boxed{2}", "2"),
        (r"\boxed{1}</think> none", None),
        (r"use the \boxed command", None),
        (r"\boxed{", None),
        (r"\boxed{}", None),
        ("the answer is 5", None),
        ("", None),
    ],
)
def test_extract(grader, content, answer):
    assert grader.extract(trajectory(content)) == answer
    assert NoGrader().extract(trajectory(content)) == answer


def test_failed_and_truncated_trajectories_have_no_answer(grader):
    """A box cut short by the token limit, or of an aborted trajectory, must never win a vote."""
    assert grader.extract(trajectory(r"\boxed{5}", finish_reason="length")) is None
    assert grader.extract(trajectory(r"\boxed{5}", error="failed: timeout")) is None


async def test_grades_say_why(grader):
    good = trajectory(r"\boxed{5}")
    assert await grader.grade(problem("5"), good) == Grade(score=1.0, answer="5")
    assert await grader.grade(problem(None), good) == Grade(score=None, answer="5", reason="no ground truth")
    failed = await grader.grade(problem("5"), trajectory("", error="failed: timeout"))
    assert failed == Grade(score=None, reason="failed: timeout")
    cut = await grader.grade(problem("5"), trajectory(r"\boxed{5}", finish_reason="length"))
    assert cut == Grade(score=0.0, reason="no answer: truncated at max_tokens", warnings=(TRUNCATED,))
    boxless = await grader.grade(problem("5"), trajectory("the answer is 5"))
    assert boxless == Grade(score=0.0, reason=r"no answer: no \boxed{} in the conclusion", warnings=(MISSED,))


@pytest.mark.parametrize(
    ("content", "finish_reason", "warnings"),
    [
        (r"<think>\boxed{1}</think> so \boxed{5}", "stop", ()),
        (r"\boxed{5}, that is, \boxed{ 5 }", "stop", ()),
        (r"\boxed{\boxed{5}}", "stop", ()),
        (r"\boxed{4} or rather \boxed{5}", "stop", (SEVERAL,)),
        (r"\boxed{4}. No: the answer is 5.", "stop", (MISSED,)),
        ("**Answer:** 5", "stop", (MISSED,)),
        ("#### 5", "stop", (MISSED,)),
        ("I cannot answer this.", "stop", ()),
        (r"The answer is 5, that is, \boxed{5}", "stop", ()),
        (r"\boxed{5}, and the answer is final.", "stop", ()),
        (r"so \boxed{5", "stop", (UNCLOSED,)),
        (r"\boxed{4}, no, \boxed{5", "stop", (UNCLOSED,)),
        (r"<think>\boxed{5}", "stop", (UNFINISHED,)),
        (r"<think>\boxed{4} or \boxed{5", "length", (TRUNCATED, UNFINISHED)),
    ],
)
async def test_warnings(grader, content, finish_reason, warnings):
    grade = await grader.grade(problem("5"), trajectory(content, finish_reason=finish_reason))
    assert grade.warnings == warnings


async def test_a_failed_trajectory_warns_of_nothing(grader):
    assert (await grader.grade(problem("5"), trajectory("<think>", error="failed: timeout"))).warnings == ()


async def test_no_grader():
    grader = NoGrader()
    assert await grader.classes(["0.5", None, "1/2", "0.5"]) == [0, None, 1, 0]
    assert await grader.grade(problem("5"), trajectory(r"\boxed{5}")) == Grade(
        score=None, answer="5", reason="ungraded: grader is none"
    )
    await grader.close()


@pytest.mark.parametrize(("name", "cls"), [("math", MathGrader), ("none", NoGrader)])
def test_conf_lists_every_argument_with_its_default(name, cls):
    """But for the cache: a file in the working directory is for runs, not for whoever builds a grader by hand."""
    conf = yaml.safe_load((ROOT / "conf" / "grader" / f"{name}.yaml").read_text())
    assert conf.pop("_target_") == f"pacore_lab.grading.{cls.__name__}"
    defaults = {field.name: field.default for field in dataclasses.fields(cls) if field.init}
    assert defaults.pop("cache", None) is None
    assert conf.pop("cache", "outputs/grades.sqlite") == "outputs/grades.sqlite"
    assert conf == defaults
