"""Which answers are the same: pairs that are and are not, every spelling of a number, and classes of answers."""

import asyncio
import itertools
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacore_lab.grading import MathGrader
from pacore_lab.grading.exact import read
from pacore_lab.grading.forms import decide
from tests.boxed import NESTED, grade

SAME = [
    # exact numbers, decided without math-verify
    ("5050", "5050"),
    ("1234567", "1,234,567"),
    ("1234567", r"1{,}234{,}567"),
    ("1234567", r"1\,234\,567"),
    ("10000", r"10,\!000"),
    ("5", "+5"),
    ("7", "007"),
    ("-5", "−5"),
    ("0", "-0"),
    ("5", "5."),
    ("42", "$42$"),
    ("42", r"\(42\)"),
    ("42", r"\text{42}"),
    ("42", r"\boxed{42}"),
    (r"\boxed{42}", "42"),
    ("1/2", "0.5"),
    ("1/2", ".50"),
    ("1/2", r"\frac{1}{2}"),
    ("1/2", r"\dfrac12"),
    ("-1/2", r"\frac{-1}{2}"),
    ("-1/2", r"-\tfrac{2}{4}"),
    ("3/2", r"1\frac{1}{2}"),
    ("3/2", "1 1/2"),
    ("0.0000001", "1e-7"),
    ("0.0000001", r"1 \times 10^{-7}"),
    ("1/3", r"0.\overline{3}"),
    ("-7/60", r"-0.11\bar{6}"),
    ("50%", r"50\%"),
    ("50%", "50.0 percent"),
    ("50", r"50\%"),  # the question said "percent"
    (r"50\%", "50"),
    ("0.5", r"50\%"),
    ("1000", r"\$1,000"),
    # quantities and words
    ("32 cm²", "32 cm²"),
    ("32 cm²", r"32\text{ cm}^2"),
    ("32 cm²", r"32.0\,\mathrm{cm}^{2}"),
    ("32 cm²", "32"),
    ("32 cm", "32cm"),
    ("20 meters", r"20\text{ m}"),
    ("9.8 m/s^2", r"9.80\text{ m/s}^2"),
    ("5", "5 apples"),
    ("Box B", r"\text{box B}"),
    ("No", "no"),
    # left to math-verify
    ("2", r"\sqrt{4}"),
    (r"3\sqrt{2}", r"\sqrt{18}"),
    ("5", "x=5"),
    ("x=5", "5"),
    (r"2\pi", "2π"),
    (r"2\pi", "2pi"),
    (r"2\ln 3", "ln 9"),
    ("(x+1)^2", "x^2+2x+1"),
    ("x²", "x^2"),
    ("n+2m", "2m+n"),
    ("1+2i", "2i+1"),
    (r"\frac1m", r"\frac{1}{m}"),
    (r"3\sqrt{2}", r"3\sqrt{2}\text{ cm}"),
    ("(1, 2)", "(1,2)"),
    ("1, 2, 3", "3,2,1"),
    (r"\pm 2", "-2, 2"),
    (r"\{1,2\}", r"\left\{2, 1\right\}"),
    (r"(\frac12, \frac13)", r"(0.5, \frac{1}{3})"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1 & 2 \\ 3 & 4\end{pmatrix}"),
    ("90", r"90^\circ"),
    ("0.123", "0,123"),  # a decimal comma: no thousands start with 0
    (r"\binom{5}{2}", "10"),
]
DIFFERENT = [
    ("5", "6"),
    ("5", "-5"),
    ("11/2", "3/2"),  # "1 1/2" is a mixed number, "11/2" is none
    ("1/3", "0.333333"),  # math-verify rounds to six places
    ("1e-7", "4e-7"),  # absolutely
    ("0.0000001", "0"),
    ("1234", "1, 234"),  # two numbers
    ("12", "1 2"),
    ("3", "1 2"),  # math-verify adds them
    ("123", "0,123"),
    ("32 cm²", "32 m²"),
    ("32 cm", "31 cm"),
    ("5", "5x"),
    ("2", "2mg"),
    ("2", "2m"),  # math-verify drops a final unit
    ("n+2", "n+2m"),
    ("5", "5 million"),
    ("10 apples", "10 oranges"),
    ("listen", "silent"),  # as products of letters they are equal
    ("Box B", "Box A"),
    ("yes", "no"),
    ("x=5", "y=5"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("(2,1)", "(3,1)"),
    (r"\sqrt{2}", r"\sqrt{3}"),
    ("2x", "2y"),
    (r"\frac{1}{0}", r"\frac{2}{0}"),
    ("2^{2025}", "2^{2025}-1"),
    ("9" * 5000, "9" * 4999 + "8"),
    ("5", "9" * 10**6),
    ("x", "__import__('os').abort()"),
    ("5", NESTED),
]


@pytest.fixture(scope="module")
def grader():
    """One worker for the file; patient, since a busy machine is no hostile answer."""
    grader = MathGrader(timeout=60)
    yield grader
    asyncio.run(grader.close())


@pytest.mark.parametrize(("gold", "answer"), SAME)
async def test_same(grader, gold, answer):
    assert (await grade(grader, gold, answer)).score == 1.0


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT, ids=lambda text: text[:20])
async def test_different(grader, gold, answer):
    result = await grade(grader, gold, answer)
    assert (result.score, result.reason) == (0.0, "")
    assert result.answer == answer


@given(value=st.fractions(), scale=st.integers(1, 10**9))
def test_every_spelling_of_a_fraction_is_that_fraction(value, scale):
    above, below = value.numerator, value.denominator
    sign = "-" if above < 0 else ""
    spellings = [
        f"{above}/{below}",
        f"{above * scale}/{below * scale}",
        rf"\frac{{{above}}}{{{below}}}",
        rf"$ {sign}\dfrac{{ {abs(above):,} }}{{ {below:,} }} $",
    ]
    assert {read(spelling).value for spelling in spellings} == {value}


@given(value=st.integers(), places=st.integers(0, 30))
def test_every_spelling_of_a_decimal_is_that_decimal(value, places):
    digits = f"{abs(value):0{places + 1}d}"
    sign, whole, rest = "-" * (value < 0), digits[: len(digits) - places], digits[len(digits) - places :]
    expected = Fraction(value, 10**places)
    for group in (",", r"\,", "{,}"):
        text = f"{sign}{int(whole):,}".replace(",", group) + (f".{rest}" if rest else "")
        assert read(text).value == expected
    assert read(f"{value}e-{places}").value == expected
    assert read(rf"{value} \cdot 10^{{-{places}}}").value == expected


@given(first=st.text(max_size=60), second=st.text(max_size=60))
def test_reading_never_raises_and_deciding_is_symmetric(first, second):
    assert decide(read(first), read(second)) == decide(read(second), read(first))
    assert decide(read(first), read(first)) is True


@settings(max_examples=50, deadline=None)
@given(
    answers=st.lists(st.sampled_from(["1/2", "0.5", "2", "2.0", "two", "Two", "50%", "2 m", None])), seed=st.integers()
)
def test_classes_do_not_depend_on_the_order_of_answers(answers, seed):
    """Relabelling the answers relabels the classes and changes nothing else."""
    order = random.Random(seed).sample(range(len(answers)), len(answers))
    classes = asyncio.run(MathGrader().classes(answers))
    shuffled = asyncio.run(MathGrader().classes([answers[i] for i in order]))
    for (i, a), (j, b) in itertools.combinations(enumerate(shuffled), 2):
        assert (a == b) == (classes[order[i]] == classes[order[j]])
    firsts = [c for c in dict.fromkeys(classes) if c is not None]
    assert firsts == list(range(len(firsts)))


async def test_classes_merge_expressions(grader):
    answers = [r"\sqrt2", None, "x+1", "2", r"\frac{2}{\sqrt{2}}", "1+x", "2.0", r"\sqrt{2}", None, "x = 5", "y = 5"]
    assert await grader.classes(answers) == [0, None, 1, 2, 0, 1, 2, 0, None, 3, 4]
    assert await grader.classes(answers[::-1]) == [0, 1, None, 2, 3, 4, 2, 3, 4, None, 2]
    assert await grader.classes([]) == []
