"""Stop rules against numbers worked by hand, and what has to hold for any votes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc

from pacore_lab.interfaces import StopRule
from strategies import stopping
from strategies.stopping import Beta, Dirichlet, Share, Unanimous

RULES: list[StopRule] = [Beta(), Dirichlet(), Unanimous(window=2), Share(least=1, share=0.5)]
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=6).map(lambda sizes: tuple(sorted(sizes, reverse=True)))


def test_beta_by_hand() -> None:
    assert stopping.beta(4, 0) == 0.96875  # 1 - 0.5^5
    assert stopping.beta(6, 1) == 1 - 9 / 256
    assert stopping.beta(3, 3) == 0.5
    assert [Beta()([0] * votes) for votes in (3, 4)] == [False, True]
    assert not Beta()([0, 1, 0, 0, 0, 0])  # 5 : 1 is 0.9375
    assert Beta(threshold=0.9375)([0, 1, 0, None, 0, 0, 0])


@given(st.integers(0, 300), st.integers(0, 300))
def test_beta_is_the_incomplete_beta_function(first: int, second: int) -> None:
    assert stopping.beta(first, second) == pytest.approx(betainc(second + 1, first + 1, 0.5), abs=1e-12)


def test_beta_looks_at_the_two_largest_classes_only() -> None:
    assert Beta()([0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5])  # 6 : 1
    assert not Dirichlet()([0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5])


def test_dirichlet_by_hand() -> None:
    """For 2, 1, 1: the integral of y^2/2 e^-y (1 - e^-y (1 + y))^2 is 1 - 5/8 + 13/81."""
    assert stopping.dirichlet((2, 1, 1)) == pytest.approx(347 / 648, abs=1e-12)
    for classes in (3, 7, 40):
        assert stopping.dirichlet((5,) * classes) == pytest.approx(1 / classes, abs=1e-12)
    assert 1 - 1e-9 < stopping.dirichlet((2000, 3, 3)) <= 1
    assert Dirichlet(threshold=0.5354)([0, 1, 0, 2])
    assert not Dirichlet(threshold=0.5355)([0, 1, 0, 2])


@given(st.integers(1, 60), st.integers(0, 60))
def test_dirichlet_over_two_classes_is_beta(first: int, second: int) -> None:
    """Over the one class seen alone the leader would be certain after a single answer."""
    classes = [0] * first + [1] * second
    assert Dirichlet(threshold=0.9)(classes) == Beta(threshold=0.9)(classes)


@given(SIZES)
def test_a_vote_for_the_leader_never_makes_it_less_likely(sizes: tuple[int, ...]) -> None:
    more = (sizes[0] + 1, *sizes[1:])
    assert stopping.dirichlet(more) >= stopping.dirichlet(sizes) - 1e-12
    assert stopping.beta(*(*more, 0)[:2]) >= stopping.beta(*(*sizes, 0)[:2])


@given(SIZES)
def test_more_rivals_never_make_the_leader_likelier(sizes: tuple[int, ...]) -> None:
    assert stopping.dirichlet((*sizes, 1)) <= stopping.dirichlet(sizes) + 1e-12 or len(sizes) == 1
    assert stopping.dirichlet(sizes) <= stopping.beta(*(*sizes, 0)[:2]) + 1e-12


def test_windows_are_blocks() -> None:
    """A sliding window stops earlier than the paper's, and on agreement that is found by looking for it."""
    rule = Unanimous(window=3)
    assert not rule([0, 1, 1, 1, 0])  # three in a row, not in one block
    assert rule([0, 1, 1, 2, 2, 2])
    assert rule([3, 3, 3, 1])
    assert not rule([0, 0])
    assert not rule([None, None, None, 0, 0, None])


def test_share_counts_invalid_answers_as_disagreement() -> None:
    rule = Share(least=3, share=0.75)
    assert not rule([0, 0])
    assert rule([0, 0, 0])
    assert rule([0, 0, None, 0])
    assert not rule([0, 0, None, 0, None])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_without_a_valid_answer_nothing_is_known(rule: StopRule) -> None:
    assert not rule([])
    assert not rule([None] * 8)
    assert rule([5] * 8)


def test_values_out_of_range_are_refused_by_key() -> None:
    for wrong in (0, 1.01, float("nan")):
        with pytest.raises(ValueError, match=r"strategy\.rule\.threshold is"):
            Beta(threshold=wrong)
        with pytest.raises(ValueError, match=r"strategy\.rule\.threshold is"):
            Dirichlet(threshold=wrong)
    with pytest.raises(ValueError, match=r"strategy\.rule\.window is 1"):
        Unanimous(window=1)
    with pytest.raises(ValueError, match=r"strategy\.rule\.least is 0"):
        Share(least=0, share=0.5)
    with pytest.raises(ValueError, match=r"strategy\.rule\.share is 0"):
        Share(least=1, share=0)
