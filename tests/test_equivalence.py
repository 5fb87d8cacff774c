"""Which answers are the same: the table of pairs, and the classes of many answers at once."""

import asyncio
import itertools
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacore_lab.grading import MathGrader, clusters, numeric
from pacore_lab.grading.answers import latex
from pacore_lab.grading.cache import Question
from pacore_lab.grading.exact import read
from pacore_lab.grading.forms import decide
from pacore_lab.grading.plain import MAX_DEPTH
from tests.answer_pairs import PAIRS
from tests.boxed import grade

ROOT = Path(__file__).parents[1]
MATH_VERIFY = r"""
import json, sys
from math_verify import parse, verify
read = lambda answer: parse("\\boxed{" + answer + "}", parsing_timeout=None)
for line in sys.stdin:
    gold, answer = json.loads(line)
    print(json.dumps(bool(verify(read(gold), read(answer), timeout_seconds=None))))
"""


@pytest.fixture(scope="module")
def grader():
    grader = MathGrader(timeout=60)
    yield grader
    asyncio.run(grader.close())


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.gold}|{pair.answer}"[:40])
async def test_pair(grader, pair):
    result = await grade(grader, pair.gold, pair.answer)
    assert (result.score, result.reason) == (float(pair.equal), "")


def test_the_table_says_truly_what_math_verify_says():
    """In a process of its own: math-verify is asked as its users ask it, without a word of ours."""
    lines = "".join(json.dumps([pair.gold, pair.answer]) + "\n" for pair in PAIRS)
    command = [sys.executable, "-c", MATH_VERIFY]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=300)
    for pair, verdict in zip(PAIRS, map(json.loads, done.stdout.splitlines()), strict=True):
        assert (pair.equal if pair.math_verify is None else pair.math_verify) == verdict, pair
        assert pair.math_verify is not pair.equal, pair


def test_the_table_is_large_and_without_repetition():
    assert len(PAIRS) >= 140
    assert len({(pair.gold, pair.answer) for pair in PAIRS}) == len(PAIRS)
    done = subprocess.run([sys.executable, "-m", "tests.answer_pairs"], cwd=ROOT, capture_output=True, check=True)
    assert len(done.stdout.splitlines()) == len(PAIRS) + 2


@pytest.mark.parametrize(
    ("answers", "classes"),
    [
        (["2", r"\sqrt{4}", r"\log_2 4", r"\lfloor 2.5 \rfloor", "3"], [0, 0, 0, 0, 1]),
        ([r"\sqrt{3+2\sqrt{2}}-\sqrt{2}", "1", "1.0000001"], [0, 0, 1]),  # is 1, not merely near it
        ([r"\frac{\sqrt{4}}{6}", "0.333333", "1/3"], [0, 1, 0]),
        # decimals join a constant that they round, and only where it is there
        (["1.414214", r"\sqrt{2}", "1.4142136", "1.4142"], [0, 0, 0, 1]),
        (["1.414214", "1.4142136"], [0, 1]),
        # a name counts only where another one is used
        (["x=5", "5", "x = 5.0", r"x=\sqrt{25}"], [0, 0, 0, 0]),
        (["x=5", "5", "y=5"], [0, 1, 2]),
        (["f(x)=x^2", "x^2", "x^2+1"], [0, 0, 1]),
        (["1<x<2", "(1,2)", r"x\in(1,2)", "[1,2]"], [0, 0, 0, 1]),
        (["(x,y)=(1,2)", "(1,2)", r"(\sqrt{1},2)"], [0, 0, 0]),
        # so does a unit, but never a percent sign
        (["32", "32 cm", r"32\text{ cm}", "33"], [0, 0, 0, 1]),
        (["32", "32 cm", "32 m"], [0, 1, 2]),
        (["5", "5 million"], [0, 1]),
        (["50", r"50\%", "0.5", "50 percent"], [0, 1, 2, 1]),
        (["B", "(B)", "Box B", r"\text{B}"], [0, 0, 0, 0]),
        (["B", "Box B", "Case B"], [0, 1, 2]),
        ([r"\{1,2\}", "2, 1", "(1,2)", "[1,2]", "(2,1)"], [0, 0, 1, 2, 3]),
        ([r"\{\sqrt{2},1\}", r"1, \frac{2}{\sqrt{2}}", r"\{1\}"], [0, 0, 1]),
        ([r"[0,\sqrt{2})", r"[0,\frac{2}{\sqrt{2}})", r"(0,\sqrt{2})"], [0, 0, 1]),
        (["x+1", "1+x", "y+1", r"\frac{x^2-1}{x-1}"], [0, 0, 1, 0]),
        ([r"\sqrt{x^2}", "x"], [0, 1]),  # equal for positive numbers only
        (["y=2x+1", "2x-y+1=0", "y=2x"], [0, 0, 1]),
        (["10^{-30}", r"\sin(\pi)", r"\frac{\sqrt{4}}{2\cdot 10^{30}}", "0"], [0, 1, 0, 1]),
        (["1e-9999", r"e^{-100}", "0"], [0, 1, 2]),
        ([f"|x|+{n}" for n in range(40)] + [f"{n}+|x|" for n in range(40)], None),  # more than are compared
        ([r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\\frac42\end{pmatrix}", "(1,2)"], [0, 0, 1]),
    ],
)
async def test_classes(grader, answers, classes):
    found = await grader.classes(answers)
    assert found == classes if classes else len(set(found)) >= 40
    assert found[::-1] == _renumbered(found, await grader.classes(answers[::-1]))


def _renumbered(expected, found):
    """`found` in the numbers of `expected` reversed, so that equal partitions become equal lists."""
    names = dict(zip(found, reversed(expected), strict=True))
    assert len(set(names.values())) == len(names) == len(set(expected))
    return [names[number] for number in found]


MIXED = [r"\sqrt{2}", "1.414214", "1.4142136", r"\frac{2}{\sqrt{2}}", "2", r"\sqrt{4}", "x=2", "y=2", "2 m", "2 cm"]
MIXED += ["x+1", "1+x", "|x|+1", "1+|x|", "(1,2)", "1<x<2", r"(1,\sqrt{4})", r"\{1,2\}", "2, 1", "[1,2]", "[1,2)"]
MIXED += ["50%", "50", "0.5", "B", "Box B", "Case B", "yes", "Yes", r"\infty", r"x^2=4", "2x^2=8", "", "1 2", None]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), answers=st.lists(st.sampled_from(MIXED), max_size=25))
def test_classes_are_invariant_under_the_order_of_answers(grader, data, answers):
    """Relabelled answers give the same partition; numbers go by first appearance; repetition changes nothing."""
    order = data.draw(st.permutations(range(len(answers))))
    classes = asyncio.run(grader.classes(answers))
    shuffled = asyncio.run(grader.classes([answers[place] for place in order]))
    for (i, one), (j, other) in itertools.combinations(enumerate(shuffled), 2):
        assert (one == other) == (classes[order[i]] == classes[order[j]])
    assert [number is None for number in classes] == [answer is None for answer in answers]
    firsts = [number for number in dict.fromkeys(classes) if number is not None]
    assert firsts == list(range(len(firsts)))
    assert asyncio.run(grader.classes(answers * 2)) == classes * 2


@given(first=st.sampled_from(PAIRS), second=st.sampled_from(PAIRS))
def test_deciding_is_symmetric(first, second):
    one, other = read(first.gold), read(second.answer)
    assert decide(one, other) == decide(other, one)


def expressions():
    """LaTeX of an expression of integers, and its value (None where it divides by zero)."""

    def join(pair):
        (one, a), (other, b), sign = pair
        if a is None or b is None or (sign == "/" and b == 0):
            return (f"({one}){sign}({other})", None)
        text = rf"\frac{{{one}}}{{{other}}}" if sign == "/" else rf"({one}){sign}({other})"
        return text, {"+": a + b, "-": a - b, "": a * b, "/": a / b if b else None}[sign]

    numbers = st.integers(0, 99).map(lambda number: (str(number), Fraction(number)))
    return st.recursive(numbers, lambda inner: st.tuples(inner, inner, st.sampled_from("+-/") | st.just("")).map(join))


@given(expression=expressions())
def test_values_are_exact(expression):
    text, value = expression
    found = numeric.evaluate(text)
    plain = len(text) <= numeric.MAX_LENGTH and text.count("(") <= MAX_DEPTH >= text.count("{")
    assert (found is not None and found.exact == value) or not plain or value is None


AMBIGUOUS = [
    "1/2x",
    r"\ln2x",
    r"\sin^2x",
    r"\sin x/2",
    "f(x)",
    "2^3^2",
    r"\log8",
    "1 2",
    r"x+2\frac{1}{2}",
    "3!!",
    "2^10",
]
UNDEFINED = ["1/0", "0^{-1}", r"\ln0", "9^{9^{9}}", "x^{99999}", r"\sqrt[x]{2}", "1..2", "2(", "", ")", "x=1", "50%"]


@pytest.mark.parametrize("text", AMBIGUOUS + UNDEFINED)
def test_what_is_not_plain_has_no_value(text):
    """A text that could be read in two ways, has no value, or takes long is the worker's."""
    assert numeric.evaluate(text) is None


async def test_both_evaluations_agree(grader):
    """Fingerprints made here and by a worker must meet: an answer may be plain in one spelling and not in the other."""
    texts = [
        "x+1",
        r"\frac{n(n+1)}{2}",
        r"2^n",
        r"\sqrt{x}",
        r"\sin x",
        r"\ln 3",
        "1+2i",
        r"e^{2}",
        "a_n+A",
        r"\theta^2",
    ]
    replies = await grader._pool.ask([("fingerprint", latex(text)) for text in texts])
    for text, reply in zip(texts, replies, strict=True):
        ours = numeric.evaluate(read(text).text)
        assert reply["kind"] == "value"
        assert ours.numbers == pytest.approx([number for pair in reply["at"] for number in pair], rel=1e-9, abs=1e-12)


async def test_what_is_the_same_to_25_digits_is_so_for_math_verify(grader):
    pairs = [
        (r"\sqrt{18}", r"3\sqrt{2}"),
        ("(x+1)^2", "x^2+2x+1"),
        (r"\sin(2x)", r"2\sin(x)\cos(x)"),
        ("2^{n+1}", r"2\cdot2^n"),
    ]
    pairs += [(r"\frac{1}{1+\sqrt{2}}", r"\sqrt{2}-1"), (r"\frac{n!}{n}", "(n-1)!"), (r"\binom{5}{2}\pi", r"10\pi")]
    assert all(numeric.same(*pair) for pair in pairs)
    assert all(await grader._pool.ask([("equal", *map(latex, pair), True) for pair in pairs]))


class Chain:
    """A pool whose relation is no equivalence: |x|+1 equals |x|+2 and that |x|+3, but 1 is not 3."""

    async def ask(self, questions: Sequence[Question]) -> list[object]:
        def place(text: object) -> int:
            return int(str(text).rpartition("+")[2])

        return [
            {"kind": "value", "at": [[1.0, 0.0]]}
            if kind == "fingerprint"
            else abs(place(rest[0]) - place(rest[1])) <= 1
            for kind, *rest in questions
        ]


@given(st.permutations([f"|x|+{n}" for n in range(1, 8)]))
def test_classes_of_an_intransitive_relation_do_not_depend_on_the_order(answers: list[str]) -> None:
    """math-verify's relation has such chains; whoever came first would otherwise decide a vote."""
    keys = asyncio.run(clusters.keys([read(answer) for answer in answers], Chain()))  # type: ignore[arg-type]
    groups = defaultdict(set)
    for form, key in keys.items():
        groups[key].add(form.text)
    assert sorted(map(sorted, groups.values())) == [
        ["|x|+1", "|x|+2"],
        ["|x|+3", "|x|+4"],
        ["|x|+5", "|x|+6"],
        ["|x|+7"],
    ]
