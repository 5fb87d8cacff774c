"""Graders of programs: what passes, what does not, and where the two graders differ."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from pacore_lab.errors import ConfigError
from pacore_lab.grading.code import LcbOfficial, LcbSubprocess
from pacore_lab.grading.code.code_grader import code_of
from pacore_lab.grading.code.expected import same_text, same_value
from pacore_lab.grading.code.sandbox import KINDS
from pacore_lab.types import Completion, Grade, Problem
from tests.doubles import trajectory, user


def works(kind: str) -> str:
    """Why a kind of sandbox does not work on this machine, "" where it does."""

    async def start() -> str:
        grader = LcbSubprocess(sandbox=kind, workers=1)
        try:
            await grader.start()
        except ConfigError as error:
            return str(error)
        finally:
            await grader.close()
        return ""

    return asyncio.run(start())


BROKEN = {kind: reason for kind in KINDS if (reason := works(kind))}
SANDBOXES = [pytest.param(k, marks=pytest.mark.skipif(k in BROKEN, reason=BROKEN.get(k, ""))) for k in KINDS]
WORKING = next((kind for kind in KINDS if kind not in BROKEN), None)
needs_sandbox = pytest.mark.skipif(WORKING is None, reason=f"no sandbox works here: {BROKEN}")


def stdin_problem(*tests: tuple[str, str]) -> Problem:
    listed = [{"input": given, "output": wanted, "testtype": "stdin"} for given, wanted in tests]
    return Problem(id="p", messages=user("q"), reference={"tests": listed, "fn_name": None})


def call_problem(name: str, *tests: tuple[str, str]) -> Problem:
    listed = [{"input": given, "output": wanted, "testtype": "functional"} for given, wanted in tests]
    return Problem(id="p", messages=user("q"), reference={"tests": listed, "fn_name": name})


async def graded(grader: Any, problem: Problem, code: str) -> Grade:
    return await grader.grade(problem, trajectory(f"<think>hm</think>Here:\n```python\n{code}\n```\nDone."))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def graders() -> AsyncIterator[dict[str, Any]]:
    made = {
        "official": LcbOfficial(workers=1, timeout=2, wall_timeout=20),
        "subprocess": LcbSubprocess(workers=1, timeout=2, wall_timeout=20),
        "share": LcbSubprocess(workers=1, score="share"),
    }
    yield made
    for grader in made.values():
        await grader.close()


in_one_loop = [needs_sandbox, pytest.mark.asyncio(loop_scope="module")]
DOUBLE = stdin_problem(("3\n", "6\n"), ("5\n", "10\n"))
LINES = stdin_problem(("3\n1 2\n3 4\n5 6\n", "3\n7\n11\n"))


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


ADD = "print(sum(map(int, {}.split())))"
TIMES = "for _ in range(int({})):\n    "
PAIRS = "for a, b in zip(d[::2], d[1::2]): print(int(a) + int(b))"
PROGRAMS = {
    "input": "n = int(input())\nfor _ in range(n):\n    a, b = map(int, input().split())\n    print(a + b)",
    "read": f"import sys\nd = sys.stdin.read().split()[1:]\n{PAIRS}",
    "readline": "import sys\n" + TIMES.format("sys.stdin.readline()") + ADD.format("sys.stdin.readline()"),
    "readlines": "import sys\nfor line in sys.stdin.readlines()[1:4]:\n    " + ADD.format("line"),
    "main": "def main():\n    for _ in range(int(input())):\n        "
    + ADD.format("input()")
    + "\n\nif __name__ == '__main__':\n    main()",
    "no imports": TIMES.format("input()") + "print(reduce(lambda a, b: a + b, map(int, input().split())))",
    "exit": TIMES.format("input()") + ADD.format("input()") + "\nsys.exit()",
    "from sys": "from sys import stdin\n" + TIMES.format("stdin.readline()") + ADD.format("stdin.readline()"),
    "stdin of the prelude": "d = stdin.read().split()[1:]\n" + PAIRS,
    "lines to the end": "import sys\nfor line in list(iter(sys.stdin.readline, ''))[1:]: " + ADD.format("line"),
    "lines to the end from sys": "from sys import stdin\nstdin.readline()\nwhile line := stdin.readline(): "
    + ADD.format("line"),
    "input to the end": "input()\ntry:\n    while True: " + ADD.format("input()") + "\nexcept EOFError: pass",
    "long numbers": "assert len(str(10**9000)) == 9001\n" + TIMES.format("input()") + ADD.format("input()"),
}
ONLY_REAL = {
    "iterate": "import sys\nnext(sys.stdin)\nfor line in sys.stdin: " + ADD.format("line"),
    "buffer": "import sys\nread = sys.stdin.buffer.readline\n" + TIMES.format("read()") + ADD.format("read()"),
    "iterate from sys": "from sys import stdin\nfor line in list(stdin)[1:]: " + ADD.format("line"),
    "descriptor": f"import os\nd = os.read(0, 10**6).split()[1:]\n{PAIRS}",
    "open 0": "for line in list(open(0))[1:]: " + ADD.format("line"),
    "device": "d = open('/dev/stdin').read().split()[1:]\n" + PAIRS,
    "stdout.buffer": "import sys\n"
    + TIMES.format("input()")
    + "sys.stdout.buffer.write(b'%d\\n' % sum(map(int, input().split())))",
    "global": "total = 0\ndef add(a, b):\n    global total\n    total = a + b\n"
    + TIMES.format("input()")
    + "add(*map(int, input().split()))\n    print(total)",
    "future": "from __future__ import annotations\n" + TIMES.format("input()") + ADD.format("input()"),
}
WRONG = {
    "off by one": ("for _ in range(int(input())): print(sum(map(int, input().split())) + 1)", "wrong answer"),
    "silent": ("pass", "wrong answer"),
    "raises": ("raise ValueError('x')", "runtime error: ValueError"),
    "syntax": ("print(", "runtime error: SyntaxError"),
    "surrogate": ("print('\ud800')", "runtime error: UnicodeEncodeError"),
    "endless": ("while True: pass", "time limit"),
    "hungry": ("x = bytearray(1 << 40)", "memory"),
}


class TestVerdicts:
    pytestmark = in_one_loop

    @pytest.mark.parametrize("which", ["official", "subprocess"])
    @pytest.mark.parametrize("code", PROGRAMS.values(), ids=PROGRAMS)
    async def test_right_on_both(self, graders: dict[str, Any], which: str, code: str) -> None:
        grade = await graded(graders[which], LINES, code)
        assert (grade.score, grade.reason) == (1.0, "")
        assert grade.details["all_passed"] is True
        assert grade.answer == code

    @pytest.mark.parametrize("code", ONLY_REAL.values(), ids=ONLY_REAL)
    async def test_where_the_graders_disagree(self, graders: dict[str, Any], code: str) -> None:
        """These are correct programs; LiveCodeBench's runner fails them, and so does what is comparable to it."""
        assert (await graded(graders["subprocess"], LINES, code)).score == 1.0
        assert (await graded(graders["official"], LINES, code)).score == 0.0

    @pytest.mark.parametrize("which", ["official", "subprocess"])
    @pytest.mark.parametrize(("code", "verdict"), WRONG.values(), ids=WRONG)
    async def test_wrong_on_both(self, graders: dict[str, Any], which: str, code: str, verdict: str) -> None:
        grade = await graded(graders[which], LINES, code)
        assert (grade.score, grade.reason) == (0.0, f"{verdict} on test 1")

    async def test_one_wrong_test_of_three(self, graders: dict[str, Any]) -> None:
        problem = stdin_problem(("1", "1"), ("2", "5"), ("3", "3"))
        stopped = await graded(graders["official"], problem, "print(input())")
        assert (stopped.score, stopped.reason) == (0.0, "wrong answer on test 2")
        assert stopped.details["ran"] == 2
        share = await graded(graders["share"], problem, "print(input())")
        assert share.score == pytest.approx(2 / 3)
        assert share.details == {
            "passed": 2,
            "ran": 3,
            "tests": 3,
            "share": share.score,
            "all_passed": False,
            "first_failure": "wrong answer on test 2",
        }
        json.dumps(dict(share.details))

    @pytest.mark.parametrize("which", ["official", "subprocess"])
    @pytest.mark.parametrize(
        ("code", "passes"),
        [
            ("class Solution:\n    def f(self, a: List[int], k): return [x * k for x in a]", True),
            ("class Solution:\n    def f(self, a, k): return tuple(x * k for x in a)", True),
            ("def f(a, k):\n    print('debug')\n    return [x * k for x in a]", True),
            ("class Solution:\n    def f(self, a, k): return [x * k + 1 for x in a]", False),
            ("class Solution:\n    def g(self, a, k): return 1", False),
            ("class Solution:\n    def f(self, a, k): return {1, 2}", False),
            ("class Solution:\n    def f(self, a, k): return lambda: 1", False),
            ("class Solution:\n    def f(self, a, k): pass", False),
            ("class E(list):\n    def __eq__(self, other): return True\ndef f(a, k): return E()", False),
            ("class E(str):\n    def __eq__(self, other): return True\ndef f(a, k): return E('x')", False),
            ("class E:\n    def __eq__(self, other): return True\ndef f(a, k): return E()", False),
        ],
    )
    async def test_functions(self, graders: dict[str, Any], which: str, code: str, passes: bool) -> None:
        """A result travels as JSON, so that an `__eq__` of the program's own has no say."""
        problem = call_problem("f", ("[1, 2]\n3", "[3, 6]"), ("[]\n5", "[]"))
        grade = await graded(graders[which], problem, code)
        assert grade.score == float(passes), grade.reason

    async def test_tuples_inside_a_list_are_lists_to_one_grader_only(self, graders: dict[str, Any]) -> None:
        problem = call_problem("f", ("1", "[[1, 2]]"))
        assert (await graded(graders["subprocess"], problem, "def f(a): return [(1, 2)]")).score == 1.0
        assert (await graded(graders["official"], problem, "def f(a): return [(1, 2)]")).score == 0.0

    async def test_exit_status_counts_with_a_real_process_only(self, graders: dict[str, Any]) -> None:
        code = "print(2 * int(input()))\nimport sys\nsys.exit(3)"
        assert (await graded(graders["official"], DOUBLE, code)).score == 1.0
        assert (await graded(graders["subprocess"], DOUBLE, code)).reason == "runtime error: exit status on test 1"

    async def test_a_test_sees_nothing_of_the_one_before(self, graders: dict[str, Any]) -> None:
        """State, and files where a program can write any."""
        code = (
            "import builtins, os\nassert not hasattr(builtins, 'seen')\nbuiltins.seen = 1\n"
            "try:\n    os.makedirs('/tmp/a/b', mode=0)\nexcept PermissionError: pass\nprint(2 * int(input()))"
        )
        grade = await graded(graders["subprocess"], DOUBLE, code)
        assert grade.score == 1.0, grade.reason

    async def test_recursion_and_threads_and_large_input(self, graders: dict[str, Any]) -> None:
        deep = "@cache\ndef f(n): return n and 1 + f(n - 1)\nprint(f(10000) * 0 + 2 * int(input()))"
        threads = "import threading\nt = threading.Thread(target=lambda: print(2 * int(input())))\nt.start()"
        assert (await graded(graders["subprocess"], DOUBLE, deep)).score == 1.0
        assert (await graded(graders["subprocess"], DOUBLE, threads)).score == 1.0
        big = " ".join(["7"] * 500_000)
        problem = stdin_problem((big, big))
        assert (await graded(graders["subprocess"], problem, "print(input())")).score == 1.0
        assert (await graded(graders["official"], problem, "print(input())")).score == 1.0

    async def test_many_programs_at_once(self, graders: dict[str, Any]) -> None:
        codes = [f"print(2 * int(input()) + {wrong})" for wrong in [0, 1] * 20]
        grades = await asyncio.gather(*(graded(graders["subprocess"], DOUBLE, code) for code in codes))
        assert [grade.score for grade in grades] == [1.0, 0.0] * 20


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
