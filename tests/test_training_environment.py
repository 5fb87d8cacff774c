"""The synthesis environment: what is drawn, that it is drawn again, and what is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from pacore_lab.errors import ConfigError
from pacore_lab.grading.code import LcbSubprocess
from pacore_lab.grading.math_grader import MathGrader
from pacore_lab.training import Counts, Instance, Record, SynthesisEnvironment
from pacore_lab.training.environment import cross_checks
from pacore_lab.types import Completion, Grade, Message
from strategies.prompts import Template
from tests.doubles import trajectory, user

MATH = MathGrader()
TESTS = {"tests": [{"testtype": "stdin", "input": "1\n", "output": "2\n"}], "fn_name": None}


def record(name: str, size: int = 8, **changed: Any) -> Record:
    given = {
        "conversation": user(f"{name}?"),
        "responses": tuple(f"{name} says {i}" for i in range(size)),
        "scores": tuple(float(i % 2) for i in range(size)),
        "answer": "1",
    }
    return Record(id=name, **{**given, **changed})


def environment(**changed: Any) -> SynthesisEnvironment:
    given = {
        "records": [record("a"), record("b"), record("c")],
        "prompt": Template(),
        "graders": {"math": MATH},
        "m_min": 2,
        "m_max": 5,
    }
    return SynthesisEnvironment(**{**given, **changed})


def test_sizes_are_uniform_and_so_are_members() -> None:
    """U(m_min, m_max) with both ends; a fixed seed, so that the test says the same each time."""
    drawn = [environment().instance(number) for number in range(3000)]
    sizes = Counter(len(instance.messages) for instance in drawn)
    assert sorted(sizes) == [2, 3, 4, 5]
    assert chisquare([sizes[size] for size in sorted(sizes)]).pvalue > 0.01
    first = Counter(instance.messages[0].text.partition(" ")[2] for instance in drawn)
    assert len(first) == 8
    assert chisquare(list(first.values())).pvalue > 0.01


@settings(max_examples=60, deadline=None)
@given(number=st.integers(0, 10**6), seed=st.integers(0, 99), bounds=st.tuples(st.integers(0, 8), st.integers(0, 8)))
def test_an_instance_follows_from_its_number(number: int, seed: int, bounds: tuple[int, int]) -> None:
    made = environment(seed=seed, m_min=min(bounds), m_max=max(bounds))
    instance = made.instance(number)
    again = environment(seed=seed, m_min=min(bounds), m_max=max(bounds))
    again.instance(number + 1)
    assert again.instance(number) == instance
    texts = [message.text for message in instance.messages]
    assert min(bounds) <= len(texts) <= max(bounds)
    assert len(set(texts)) == len(texts), "drawn with replacement"
    (drawn,) = (each for each in made.records if each.id == instance.record)
    known = dict(zip(drawn.responses, drawn.scores, strict=True))
    assert [known[text] for text in texts] == list(instance.scores)
    assert instance.problem == drawn.problem
    assert instance.prompt == Template()(drawn.problem, instance.messages)


def test_an_epoch_asks_each_problem_once_with_new_messages() -> None:
    """Messages that are drawn once and shown in every epoch are memorised."""
    made = environment()
    epochs = [[made.instance(3 * epoch + place) for place in range(3)] for epoch in range(40)]
    assert all(sorted(instance.record for instance in epoch) == ["a", "b", "c"] for epoch in epochs)
    assert len({tuple(instance.record for instance in epoch) for epoch in epochs}) == 6
    assert len({instance.messages for epoch in epochs for instance in epoch if instance.record == "a"}) > 30
    other = environment(seed=1)
    assert [other.instance(n).messages for n in range(9)] != [made.instance(n).messages for n in range(9)]


def test_the_control_without_references_asks_the_bare_problem() -> None:
    instance = environment(m_min=0, m_max=0).instance(0)
    assert (instance.prompt, instance.messages) == (instance.problem.messages, ())
    assert not instance.all_wrong, "of no messages nothing was wrong"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"m_min": -1}, "m_min is -1"),
        ({"m_min": 6}, "m_max is 5; give a whole number of 6 or more"),
        ({"m_max": 9}, "m_max is 9, but record 'a' has 8 messages"),
        ({"records": []}, "records is empty"),
        ({"records": [record("x", answer=None, reference=TESTS)]}, "graders['code']"),
    ],
)
def test_environments_that_cannot_be(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        environment(**changed)
    assert said in str(raised.value)


class Recorder:
    """A grader that remembers what it was shown."""

    version = "recorder"

    def __init__(self, score: float | None) -> None:
        self.score, self.seen = score, []

    async def grade(self, problem: Any, response: Any) -> Grade:
        self.seen.append(problem)
        return Grade(score=self.score)


async def test_the_reward_is_the_core_graders_and_blind_to_messages() -> None:
    math, code = Recorder(1.0), Recorder(0.25)
    made = environment(
        records=[record("a"), record("b", answer=None, reference=TESTS)], graders={"math": math, "code": code}
    )
    instances = {instance.record: instance for instance in (made.instance(0), made.instance(1))}
    assert (await made.reward(instances["a"], trajectory("x"))).score == 1.0
    assert (await made.reward(instances["b"], trajectory("x"))).score == 0.25
    assert math.seen == [made.records[0].problem]
    assert code.seen == [made.records[1].problem]


async def test_math_is_one_or_zero_and_a_failure_no_reward() -> None:
    made = environment()
    instance = made.instance(0)
    replies = [
        trajectory("so \\boxed{1}"),
        trajectory("\\boxed{2}"),
        trajectory("1"),
        trajectory("", error="failed: x"),
    ]
    assert [(await made.reward(instance, reply)).score for reply in replies] == [1.0, 0.0, 0.0, None]
    await MATH.close()


async def test_code_is_rewarded_by_its_pass_rate() -> None:
    tests = [{"testtype": "stdin", "input": f"{n}\n", "output": "2\n"} for n in (1, 2, 3, 4)]
    grader = LcbSubprocess(score="share", workers=1)
    made = environment(
        records=[record("a", answer=None, reference={"tests": tests, "fn_name": None})], graders={"code": grader}
    )
    try:
        await grader.start()
    except ConfigError as error:
        pytest.skip(str(error))
    try:
        grade = await made.reward(made.instance(0), trajectory("```python\nprint(input())\n```"))
    finally:
        await grader.close()
    assert grade.score == 0.25, grade


def shown(*scores: float | None) -> Instance:
    messages = tuple(Message(text=str(i), sources=(f"r:{i}",)) for i in range(len(scores)))
    problem = record("r").problem
    return Instance(record="r", problem=problem, prompt=problem.messages, messages=messages, scores=scores)


def test_emergent_correctness_is_counted_where_every_message_is_known_to_be_wrong() -> None:
    """A vacuous or an unknown "all wrong" makes plain solving look emergent."""
    right, half, wrong, none = (Grade(score=score) for score in (1.0, 0.5, 0.0, None))
    reply = trajectory("x")
    all_wrong = [Counts.of(shown(0.0, 0.0), reply, grade) for grade in (right, half, wrong, none)]
    others = [Counts.of(shown(*scores), reply, right) for scores in ((), (0.0, None), (0.0, 1.0), (0.0, 0.25))]
    total = sum((*all_wrong, *others), Counts())
    assert (total.responses, total.graded, total.reward) == (8, 7, 5.5)
    assert (total.all_wrong, total.emergent) == (3, 1)
    assert total.emergent_rate == 1 / 3
    assert sum(others, Counts()).emergent_rate is None


counts = st.builds(
    Counts,
    **dict.fromkeys(("responses", "graded", "all_wrong", "emergent", "cross_checks", "concluding"), st.integers(0, 99)),
    reward=st.integers(0, 99).map(lambda quarters: quarters / 4),
)


@given(counts, counts, counts)
def test_counts_add_up_in_any_order(a: Counts, b: Counts, c: Counts) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Counts() == a


def test_cross_checking_words() -> None:
    """ "reference" inside "Reference 3" would count the prompt's own headings when a response quotes them."""
    assert cross_checks("reference references 参考答案 Ref 3, ref 12, Ref3") == 6
    assert cross_checks("Reference 3, REF 3, ref. 3, prefer 3, Refs") == 0
    thinking = trajectory("<think>Ref 1 and Ref 2</think>as ref 1 says")
    counted = Counts.of(shown(), thinking, Grade(score=0.0))
    assert (counted.cross_checks, counted.concluding) == (3, 1)
    split = replace(thinking, completion=Completion(content="as ref 1 says", reasoning="Ref 1 and Ref 2"))
    assert Counts.of(shown(), split, Grade(score=0.0)) == counted
    failed = replace(split, error="failed: x")
    assert Counts.of(shown(), failed, Grade(score=None)) == Counts(responses=1)
