"""Graders of programs, without a program run: the code of a response, equal outputs, what is not run, bad settings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacore_lab.grading.code import LcbOfficial
from pacore_lab.grading.code.code_grader import code_of
from pacore_lab.grading.code.expected import same_text, same_value
from pacore_lab.types import Completion, Problem
from tests.doubles import trajectory, user
from tests.sandboxes import DOUBLE, call_problem


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nprint(1)\n```", "print(1)"),
        ("first\n```\na\n```\nthen\n```py\nb = 1\nc\n```\nend", "b = 1\nc"),
        ("```\nonly one fence", None),
        ("no fence", None),
        ("```python\n   \n```", None),
        ("x ``` y\ncode\n  ```  ", "code"),
    ],
)
def test_code_is_what_stands_between_the_last_two_fences(text: str, code: str | None) -> None:
    assert code_of(text) == code


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("6\n", "6", True),
        ("  6  \n\n", "6\n", True),
        ("1 2\n3", "1 2 \n 3\n", True),
        ("1\n\n2", "1\n2", False),
        ("0.50", "0.5", True),
        ("1e3", "1000", True),
        ("0.3333", "0.33333", False),
        ("50000000000000000", "50000000000000001", False),
        ("yes", "YES", False),
        ("1 x", "1.0 x", False),
        ("1 2 3", "1 2", False),
        ("nan", "NaN", False),
        ("sNaN 1", "sNaN 2", False),
        ("", "", True),
        ("", "0", False),
        ("1" * 5000, "1" * 5000 + ".0", True),
    ],
)
def test_outputs_are_compared_as_text_then_as_decimals(output: str, expected: str, same: bool) -> None:
    assert same_text(output, expected) is same


@given(st.lists(st.lists(st.integers(-(10**30), 10**30), min_size=1, max_size=4), min_size=1, max_size=4))
def test_spelling_of_numbers_does_not_matter_and_their_value_does(rows: list[list[int]]) -> None:
    expected = "\n".join(" ".join(map(str, row)) for row in rows)
    spelled = "\r\n".join("  ".join(f"{number}.00" for number in row) for row in rows)
    assert same_text(spelled, expected)
    assert not same_text(spelled + "1", expected)  # the last number has other decimals now


@pytest.mark.parametrize("text", ["[" * 10**5, "1" * 10**5, "{", "", "NaN", "[1, 2"])
def test_a_hostile_result_is_only_wrong(text: str) -> None:
    assert not same_value(text, [1])


async def test_what_is_not_run_has_its_reason() -> None:
    grader = LcbOfficial()
    fences = "```\nprint(1)\n```"
    ended = Completion(content=fences, finish_reason="length")
    cases = [
        (DOUBLE, trajectory("no code"), 0.0, "no answer: no code between ``` fences"),
        (DOUBLE, trajectory("", completion=ended), 0.0, "no answer: truncated at max_tokens"),
        (DOUBLE, trajectory(fences, error="failed: 500"), None, "failed: 500"),
        (Problem(id="p", messages=user("q"), answer="5"), trajectory(fences), None, "no tests"),
        (Problem(id="p", messages=user("q"), reference={"tests": []}), trajectory(fences), None, "no tests"),
    ]
    for problem, given_, score, reason in cases:
        grade = await grader.grade(problem, given_)
        assert (grade.score, grade.reason) == (score, reason)
    bad = [call_problem("f", ("1", "not JSON")), Problem(id="p", messages=user("q"), reference={"tests": [{}]})]
    for problem in [*bad, call_problem("", ("1", "1"))]:
        grade = await grader.grade(problem, trajectory(fences))
        assert grade.score is None
        assert grade.reason.startswith("ungraded: bad tests")
    assert await grader.classes(["print(1)", None, "print(1)"]) == [None, None, None]
    await grader.close()


async def test_tests_are_read_once_per_grade() -> None:
    """They may be megabytes that are unpacked when read."""

    class Lazy(dict[str, Any]):
        reads = 0

        def __getitem__(self, key: str) -> Any:
            Lazy.reads += key == "tests"
            return super().__getitem__(key)

    problem = Problem(id="p", messages=user("q"), reference=Lazy(tests=[{"testtype": "functional"}], fn_name=None))
    assert (await LcbOfficial().grade(problem, trajectory("```\nx\n```"))).score is None
    assert Lazy.reads == 1


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"score": "some"}, "grader.score"),
        ({"timeout": 0}, "grader.timeout"),
        ({"timeout": 9, "wall_timeout": 5}, "grader.wall_timeout"),
        ({"memory_mb": 5}, "grader.memory_mb"),
        ({"output_mb": 0}, "grader.output_mb"),
        ({"workers": 0}, "grader.workers"),
        ({"sandbox": "docker"}, "grader.sandbox"),
        ({"sandbox": "none"}, "grader.allow_unsafe"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        LcbOfficial(**settings)
