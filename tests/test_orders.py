"""Orders that measure what the place of a reference does, against rounds worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacore_lab.interfaces import Order, needs_of
from pacore_lab.types import Completion, Trajectory
from strategies.orders import ByClassSize, ByWeight, Majority, Published
from strategies.weights import Length, Likelihood
from tests.doubles import trajectory


def answering(*classes: int | None) -> list[Trajectory]:
    """Named by place, of lengths 1, 2, ..., so that the published order is one shuffle of the places."""
    return [trajectory("x" * (i + 1), name=f"{i}", index=i, answer_class=each) for i, each in enumerate(classes)]


def names(trajectories: list[Trajectory]) -> list[str]:
    return [each.id for each in trajectories]


def published(*classes: int | None) -> list[str]:
    return names(Published()(answering(*classes)))


CLASSES = st.lists(st.none() | st.integers(0, 3), max_size=12)
ORDERS: list[Order] = [
    ByClassSize(largest_first=True),
    ByClassSize(largest_first=False),
    Majority(first=True),
    Majority(first=False),
    ByWeight(by=Length(), largest_first=True),
]


@given(CLASSES, st.sampled_from(ORDERS), st.randoms(use_true_random=False))
def test_an_order_is_a_permutation_that_does_not_depend_on_arrival(classes, order, draw) -> None:  # type: ignore[no-untyped-def]
    found = answering(*classes)
    ordered = order(found)
    assert sorted(names(ordered), key=int) == names(found)
    mixed = draw.sample(found, len(found))
    assert order(mixed) == ordered


def test_majority_first_and_last_leave_the_others_as_published() -> None:
    classes = (0, 1, 1, 2, None, 1, 0)
    plain = published(*classes)
    ours, others = [n for n in plain if n in "125"], [n for n in plain if n not in "125"]
    assert names(Majority(first=True)(answering(*classes))) == ours + others
    assert names(Majority(first=False)(answering(*classes))) == others + ours


@pytest.mark.parametrize("classes", [(0, 1, 0, 1, 2), (None, None), ()])
def test_without_a_majority_the_published_order_stays(classes: tuple[int | None, ...]) -> None:
    """A tie that is broken by an accident of the numbering would pass for a majority in a measurement of bias."""
    assert names(Majority(first=True)(answering(*classes))) == published(*classes)
    assert names(Majority(first=False)(answering(*classes))) == published(*classes)


def test_class_sizes_by_hand() -> None:
    classes = (0, 1, 1, 2, None, 1, 0)
    ordered = ByClassSize(largest_first=True)(answering(*classes))
    assert [t.answer_class for t in ordered] == [1, 1, 1, 0, 0, 2, None]
    assert names(ordered)[:3] == [n for n in published(*classes) if n in "125"]
    assert [t.answer_class for t in ByClassSize(largest_first=False)(answering(*classes))] == [2, 0, 0, 1, 1, 1, None]


def test_classes_of_one_size_are_not_mixed() -> None:
    ordered = [t.answer_class for t in ByClassSize(largest_first=True)(answering(0, 1, 0, 1, 0, 1))]
    assert ordered in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])


def likely(name: str, logprob: float | None) -> Trajectory:
    return trajectory(name, name=name, completion=Completion(content=name, mean_logprob=logprob))


def test_by_weight_by_hand() -> None:
    """Empty and failed trajectories have no log-probabilities: weighing them would fail the episode."""
    silent = [trajectory("", name="empty"), trajectory("x", name="failed", error="failed: no")]
    found = [*silent, likely("a", -2.0), likely("b", -1.0), likely("c", -3.0)]
    assert names(ByWeight(by=Likelihood(), largest_first=True)(found))[:3] == ["b", "a", "c"]
    assert names(ByWeight(by=Likelihood(), largest_first=False)(found))[:3] == ["c", "a", "b"]
    assert {t.id for t in ByWeight(by=Likelihood(), largest_first=True)(found)[3:]} == {"empty", "failed"}


@given(st.lists(st.sampled_from([-1.0, -2.0]), max_size=8), st.booleans())
def test_equal_weights_keep_the_published_order(weights: list[float], largest_first: bool) -> None:
    found = [likely("x" * (i + 1), weight) for i, weight in enumerate(weights)]
    plain = names(Published()(found))
    ordered = names(ByWeight(by=Likelihood(), largest_first=largest_first)(found))
    for value in (-1.0, -2.0):
        same = {t.id for t in found if t.completion.mean_logprob == value}
        assert [n for n in ordered if n in same] == [n for n in plain if n in same]


def test_what_orders_need() -> None:
    assert needs_of(Majority(first=True)) == needs_of(ByClassSize(largest_first=True)) == {"answers"}
    assert needs_of(ByWeight(by=Likelihood(), largest_first=True)) == {"logprobs"}
