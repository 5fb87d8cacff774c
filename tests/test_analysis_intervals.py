"""Intervals that cover what they say, clustered by problem, and the standard errors of a method."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pacore_lab.analysis import Method, accuracy_interval, difference_interval, standard_errors, stratified_interval


@pytest.mark.parametrize("wins", [0, 3, 15, 29, 30])
def test_with_one_repeat_it_is_close_to_wilson(wins: int) -> None:
    low, high = accuracy_interval([1.0] * wins + [0.0] * (30 - wins), 1)
    wilson = stats.binomtest(wins, 30).proportion_ci(method="wilson")
    assert (low, high) == (pytest.approx(wilson.low, abs=0.03), pytest.approx(wilson.high, abs=0.03))
    assert 0 <= low < high <= 1


def test_with_many_problems_it_is_the_clustered_t_interval() -> None:
    means = np.random.default_rng(1).beta(4, 4, 2000)
    half = 1.96 * means.std(ddof=1) / math.sqrt(2000)
    low, high = accuracy_interval(means.tolist(), 64)
    assert (low, high) == (pytest.approx(means.mean() - half, abs=1e-3), pytest.approx(means.mean() + half, abs=1e-3))


def test_repeats_do_not_pass_for_problems() -> None:
    """Ten problems, each always right or always wrong: 64 repeats tell no more than one."""
    means = [1.0] * 5 + [0.0] * 5
    assert accuracy_interval(means, 64) == accuracy_interval(means, 1)


def test_an_accuracy_near_one_is_not_more_certain_than_one() -> None:
    """Guards against an error taken from the one repeat of thirty problems' that failed: 100 % had a wider interval."""
    nearly, all_right = accuracy_interval([1.0] * 29 + [15 / 16], 16), accuracy_interval([1.0] * 30, 16)
    assert nearly[1] - nearly[0] > 0.5 * (all_right[1] - all_right[0])


@pytest.mark.parametrize(("problems", "repeats", "mean"), [(10, 4, 0.9), (30, 1, 0.9), (30, 4, 0.97), (30, 16, 0.5)])
def test_coverage_of_the_accuracy_interval(problems: int, repeats: int, mean: float) -> None:
    """Nominal 95 %; experiments/interval_coverage has more settings. Student's t covers 85 to 90 % in some of these."""
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(300):
        difficulty = rng.beta(2 * mean, 2 * (1 - mean), problems)
        low, high = accuracy_interval((rng.binomial(repeats, difficulty) / repeats).tolist(), repeats)
        hits.append(low <= mean <= high)
    assert np.mean(hits) >= 0.92


@pytest.mark.parametrize(("problems", "repeats", "lead"), [(10, 1, 0.05), (30, 1, 0.05), (30, 4, 0.03), (100, 4, 0.05)])
def test_coverage_of_the_paired_difference(problems: int, repeats: int, lead: float) -> None:
    """Nominal 95 %; Student's t alone covers 40 % in the first setting, 78 % in the second."""
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(300):
        base = rng.beta(0.9, 0.1, problems)
        ours = base + (1 - base) * lead / 0.1
        draws = rng.random((problems, repeats))
        leads = ((draws < ours[:, None]) * 1.0 - (draws < base[:, None])).mean(axis=1)
        low, high = difference_interval(leads.tolist(), repeats, float(np.abs(leads).mean()))
        hits.append(low <= lead <= high)
    assert np.mean(hits) >= 0.92


@pytest.mark.parametrize("repeats", [1, 4, 64])
@pytest.mark.parametrize("lead", [-1.0, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("problems", [1, 2, 30, 1000])
def test_agreeing_problems_are_not_certainty(problems: int, lead: float, repeats: int) -> None:
    low, high = difference_interval([lead] * problems, repeats)
    assert -1 <= low <= lead <= high <= 1
    assert low < high


@pytest.mark.parametrize("sizes", [(30, 30), (60, 10), (40, 30, 20)])
def test_coverage_of_the_mean_over_groups(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    means = [0.3, 0.8, 0.6][: len(sizes)]
    hits = []
    for _ in range(400):
        groups = [rng.binomial(4, rng.beta(m, 1 - m, n)) / 4 for m, n in zip(means, sizes, strict=True)]
        low, high = stratified_interval([group.tolist() for group in groups], 4)
        hits.append(low <= np.mean(means) <= high)
    assert np.mean(hits) >= 0.92


def test_standard_errors_over_problems_and_within() -> None:
    rng = np.random.default_rng(0)
    right = rng.beta(2, 2, (400, 1))
    found = standard_errors(Method.of("m", map(str, range(400)), (rng.random((400, 8)) < right) * 1.0))
    assert found.total == pytest.approx(math.sqrt((0.05 + 0.2 / 8) / 400), rel=0.1)
    assert found.within == pytest.approx(math.sqrt(0.2 / 8 / 400), rel=0.1)


def test_standard_errors_that_cannot_be_told_are_none() -> None:
    once = standard_errors(Method.of("m", ["a"], [[1.0]]))
    assert (once.total, once.within) == (None, None)
    same = standard_errors(Method.of("m", ["a", "b"], [[1.0, 1.0], [0.0, 0.0]], independence=0.5))
    assert same.within is None  # both repeats saw the same trajectories
    assert standard_errors(Method.of("m", ["a"], [[math.nan]])).total is None


def test_a_shared_pool_has_a_larger_error_than_its_redraws_show() -> None:
    scores = np.random.default_rng(0).integers(0, 2, (20, 8)) * 1.0
    names = [str(i) for i in range(20)]
    fresh, shared = (standard_errors(Method.of("m", names, scores, independence=w)) for w in (1.0, 0.25))
    assert fresh.total == shared.total
    assert fresh.within is not None
    assert shared.within is not None
    assert shared.within > 2 * fresh.within
