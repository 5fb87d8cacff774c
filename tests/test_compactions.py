"""Compactions beyond the published one that ask no model, against rounds worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacore_lab.grading import NoGrader
from pacore_lab.interfaces import Compaction, needs_of
from pacore_lab.types import Completion, Message, Trajectory
from strategies.compaction import (
    AnswerSteps,
    Conclusion,
    Dedupe,
    DisagreementDigest,
    Full,
    GlobalSummary,
    LLMSummary,
    RandomK,
    TopK,
)
from strategies.weights import Length, Likelihood
from tests.doubles import trajectory


def answering(*classes: int | None) -> list[Trajectory]:
    """A trajectory per class: a, b, ... whose answers are 10 times their class; None has no box."""
    return [
        trajectory(
            f"<think>hm {name}</think>{name} says " + ("nothing" if each is None else f"\\boxed{{{10 * each}}}"),
            name=name,
            answer=None if each is None else str(10 * each),
            answer_class=each,
        )
        for name, each in zip("abcdefghijkl", classes, strict=False)
    ]


def likely(name: str, logprob: float, **kwargs: object) -> Trajectory:
    return trajectory(name, name=name, completion=Completion(content=name, mean_logprob=logprob), **kwargs)


# ---- one message per answer ----


def test_dedupe_keeps_the_first_of_each_answer_and_names_all() -> None:
    found = Dedupe(of=Conclusion(), keep_invalid=True)(answering(1, 0, None, 1, 1, None))
    assert found == (
        Message(text="a says \\boxed{10}", sources=("a", "d", "e")),
        Message(text="b says \\boxed{0}", sources=("b",)),
        Message(text="c says nothing", sources=("c",)),
        Message(text="f says nothing", sources=("f",)),
    )
    assert [m.sources for m in Dedupe(of=Conclusion(), keep_invalid=False)(answering(1, 0, None, 1))] == [
        ("a", "d"),
        ("b",),
    ]


CLASSES = st.lists(st.none() | st.integers(0, 3), max_size=12)


@given(CLASSES)
def test_dedupe_names_every_trajectory_once(classes: list[int | None]) -> None:
    """A trajectory that is counted twice, or not at all, makes the counts shown to the next round wrong."""
    messages = Dedupe(of=Conclusion(), keep_invalid=True)(answering(*classes))
    sources = [source for message in messages for source in message.sources]
    assert sorted(sources) == [t.id for t in answering(*classes)]
    assert len(messages) == len(set(classes) - {None}) + classes.count(None)


def test_dedupe_shows_a_usable_member_of_a_class_whose_first_is_left_out() -> None:
    """`of` may drop the first of a class; the class must not vanish with it."""
    of = TopK(k=1, of=Conclusion(), by=Likelihood())
    ts = [likely("a", -2.0, answer_class=0), likely("b", -1.0, answer_class=0)]
    assert Dedupe(of=of, keep_invalid=True)(ts) == (Message(text="b", sources=("a", "b")),)


# ---- disagreement digest ----


def test_digest_by_hand() -> None:
    digest = DisagreementDigest(shown=1, of=Conclusion())
    [message] = digest(answering(0, 1, None, 1, 2))
    assert message.sources == ("a", "b", "d", "e")
    assert message.text == (
        "Different answers in 4 responses: 3 (1 response more gave none).\n\n"
        "Answer 10, given by 2 responses.\nOne of them:\nb says \\boxed{10}\n\n"
        "Answer 0, given by 1 response.\n\n"
        "Answer 20, given by 1 response."
    )


def test_digest_of_agreement_shows_one_text_and_of_nothing_is_nothing() -> None:
    digest = DisagreementDigest(shown=3, of=Conclusion())
    [message] = digest(answering(0, 0, 0))
    assert message.text.count("says") == 1
    assert message.text.startswith("Different answers in 3 responses: 1.")
    assert digest(answering(None, None)) == ()
    assert digest([]) == ()


def test_digest_takes_answers_as_data() -> None:
    [ours] = answering(0)
    [message] = DisagreementDigest(shown=1, of=Conclusion())([replace(ours, answer="{{ 7 * 7 }} {0} %s")])
    assert "Answer {{ 7 * 7 }} {0} %s, given by 1 response." in message.text


# ---- the surest ones ----


def test_top_k_takes_the_likeliest_and_keeps_their_order() -> None:
    ts = [likely("a", -3.0), likely("b", -1.0), trajectory("", name="e"), likely("c", -2.0), likely("d", -1.0)]
    assert [m.text for m in TopK(k=2, of=Conclusion(), by=Likelihood())(ts)] == ["b", "d"]
    assert [m.text for m in TopK(k=3, of=Conclusion(), by=Likelihood())(ts)] == ["b", "c", "d"]
    assert len(TopK(k=9, of=Conclusion(), by=Likelihood())(ts)) == 4


def test_top_k_weighs_a_message_of_several_by_its_best() -> None:
    ts = [likely("a", -3.0, answer_class=0), likely("b", -2.0, answer_class=1), likely("c", -1.0, answer_class=0)]
    of = Dedupe(of=Conclusion(), keep_invalid=True)
    assert [m.sources for m in TopK(k=1, of=of, by=Likelihood())(ts)] == [("a", "c")]


def test_needs_come_from_the_parts() -> None:
    """A run without log-probabilities must be refused before the first token, not fail in the first compaction."""
    inner = Dedupe(of=Conclusion(), keep_invalid=True)
    assert needs_of(TopK(k=1, of=inner, by=Likelihood())) == {"answers", "logprobs"}
    assert needs_of(TopK(k=1, of=Conclusion(), by=Length())) == frozenset()
    assert needs_of(LLMSummary(of=inner, max_tokens=9)) == {"answers"}


# ---- answer and steps ----


def test_answer_steps_by_hand() -> None:
    said = trajectory(
        "<think>u = 1</think>We set x = 3. Then, as x \\le y, y grows.\nHence y = 2x + 1\n$$y = 7$$\nSo \\boxed{7}.",
        name="a",
    )
    [message] = AnswerSteps(steps=2, grader=NoGrader())([said, trajectory("x = 1, no box", name="b")])
    assert message == Message(text="Hence y = 2x + 1\n$$y = 7$$\nAnswer: 7", sources=("a",))
    [longer] = AnswerSteps(steps=9, grader=NoGrader())([said])
    assert longer.text.splitlines()[:2] == ["We set x = 3.", "Then, as x \\le y, y grows."]
    [alone] = AnswerSteps(steps=2, grader=NoGrader())([trajectory("It is \\boxed{7}")])
    assert alone.text == "Answer: 7"


@pytest.mark.parametrize("line", ["====", "a ==", "-> b", "=> c", "no relation", "\\left( x \\right)", "<<<"])
def test_ornaments_are_no_steps(line: str) -> None:
    [message] = AnswerSteps(steps=2, grader=NoGrader())([trajectory(f"{line}\n\\boxed{{7}}")])
    assert message.text == "Answer: 7"


# ---- all of them ----


PURE = [
    AnswerSteps(steps=2, grader=NoGrader()),
    Dedupe(of=Conclusion(), keep_invalid=True),
    DisagreementDigest(shown=2, of=Conclusion()),
    TopK(k=2, of=Conclusion(), by=Length()),
    Dedupe(of=RandomK(k=2, of=Conclusion()), keep_invalid=False),
]


@given(CLASSES, st.sampled_from(PURE))
def test_messages_name_their_round_and_repeat(classes: list[int | None], compaction: Compaction) -> None:
    ts = answering(*classes)
    messages = compaction(ts)
    assert all(message.text and message.sources for message in messages)
    assert {source for message in messages for source in message.sources} <= {t.id for t in ts}
    assert compaction(ts) == messages
    failed = [replace(each, error="failed: no", answer=None, answer_class=None) for each in ts]
    assert compaction(failed) == ()


@pytest.mark.parametrize(
    ("kind", "key", "rest"),
    [
        (LLMSummary, "max_tokens", {"of": Full()}),
        (GlobalSummary, "max_tokens", {"of": Full()}),
        (AnswerSteps, "steps", {"grader": NoGrader()}),
        (TopK, "k", {"of": Full(), "by": Length()}),
        (DisagreementDigest, "shown", {"of": Full()}),
    ],
)
def test_counts_are_refused_by_their_key(kind: type, key: str, rest: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"strategy\.compaction\.{key} is 0"):
        kind(**{key: 0}, **rest)
