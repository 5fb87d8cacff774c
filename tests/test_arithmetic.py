"""The arithmetic problem set: right answers, stable ids, splits that never meet."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pacore_lab.problems.arithmetic import Arithmetic, split_of

CONF = Path(__file__).parents[1] / "conf" / "problems"
OPERATIONS = ("add", "sub", "mul", "modexp")
seeds = st.integers(0, 10**6)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, factors=st.sampled_from([None, (2, 9)]), draw=st.sampled_from(["value", "digits"]))
def test_answers_are_those_of_the_written_expression(seed, factors, draw):
    """Guards against an answer computed from other numbers than the ones the model reads."""
    problems = Arithmetic(n=20, seed=seed, operations=OPERATIONS, factors=factors, draw=draw, modulus=10**9 + 7).load()
    for problem in problems:
        text = problem.messages[-1]["content"]
        a, sign, b = re.search(r"(\d+) ?([-+*^]) ?(\d+)", text).groups()
        a, b = int(a), int(b)
        expected = {"+": a + b, "-": a - b, "*": a * b, "^": pow(a, b, 10**9 + 7)}[sign]
        assert problem.answer == str(expected)
        assert r"\boxed{}" in text


@settings(max_examples=25, deadline=None)
@given(train_seed=seeds, test_seed=seeds)
def test_train_and_test_never_share_an_expression(train_seed, test_seed):
    """Small ranges, so that without the split almost every expression would be in both."""
    small = {"n": 60, "operations": ("add", "sub", "mul"), "operands": (1, 20), "factors": None}
    train = Arithmetic(**small, seed=train_seed, split="train").questions()
    test = Arithmetic(**small, seed=test_seed, split="test").questions()
    assert not {(q.operation, q.a, q.b) for q in train} & {(q.operation, q.a, q.b) for q in test}


@given(a=st.integers(0, 10**13), b=st.integers(0, 10**13))
def test_mirrored_sums_are_on_the_same_side(a, b):
    assert split_of("add", a, b) == split_of("add", b, a)
    assert split_of("mul", a, b) == split_of("mul", b, a)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, n=st.integers(1, 40), more=st.integers(1, 40))
def test_a_larger_set_only_appends(seed, n, more):
    """Ids name stored trajectories: asking for more problems must not rename or reorder the old ones."""
    small, large = Arithmetic(n=n, seed=seed).load(), Arithmetic(n=n + more, seed=seed).load()
    assert large[:n] == small
    assert len({problem.id for problem in large}) == n + more


def test_ids_are_pinned():
    """A change here would silently orphan every stored trajectory of the default problem set."""
    assert [problem.id for problem in Arithmetic(n=2).load()] == ["add-1ee0f0139bb6", "add-7424f9796884"]


@pytest.mark.parametrize("name", ["arithmetic", "arithmetic_published"])
def test_configurations_list_every_argument_and_load(name):
    """A forgotten key would hide a knob; a drifted default would make the YAML and the class disagree."""
    arguments = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert arguments.pop("_target_") == "pacore_lab.problems.arithmetic.Arithmetic"
    assert set(arguments) == set(Arithmetic.__dataclass_fields__)
    problem_set = Arithmetic(**arguments)
    assert len(problem_set.load()) == 100
    if name == "arithmetic":
        assert problem_set == Arithmetic()
    else:
        assert all(10**11 <= q.a <= 10**13 and 10**11 <= q.b <= 10**13 for q in problem_set.questions())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "at least one problem"),
        ({"operations": ["div"]}, "div"),
        ({"operations": []}, "name one or more"),
        ({"operands": [5, 4]}, "low <= high"),
        ({"factors": [5]}, "factors"),
        ({"split": "dev"}, "'train' or 'test'"),
        ({"draw": "log"}, "'value' or 'digits'"),
        ({"modulus": 1}, "prime"),
        ({"templates": []}, "at least one"),
        ({"templates": ["no expression"]}, "lacks"),
        ({"templates": [r"{expression} in \boxed{}"]}, "literal braces"),
    ],
)
def test_wrong_arguments_say_how_to_mend_them(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Arithmetic(**arguments)


def test_ranges_that_hold_too_few_problems_are_an_error():
    """Guards against an endless search for a hundredth distinct problem among eighty-one."""
    with pytest.raises(ValueError, match="widen operands"):
        Arithmetic(n=100, operations=("add",), operands=(1, 9)).load()
