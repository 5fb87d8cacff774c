"""Programs on both graders: which pass, which fail with which verdict, and where the two differ."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pacore_lab.grading.code import LcbOfficial, LcbSubprocess
from tests.sandboxes import DOUBLE, call_problem, graded, needs_sandbox, stdin_problem


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
LINES = stdin_problem(("3\n1 2\n3 4\n5 6\n", "3\n7\n11\n"))
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
