"""Two methods on the same problems: paired, tested exactly, and how many problems it would have taken."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pacore_lab.analysis import (
    Method,
    Spread,
    designs,
    difference_interval,
    methods_of,
    paired,
    power,
    problems_needed,
    sign_flip,
    smallest_difference,
    spread_of,
    table,
)
from pacore_lab.analysis.methods import KEPT, Overlap
from tests.lines import line

NAN = math.nan


def method(name: str, scores: Any, problems: Any = None, **known: Any) -> Method:
    return Method.of(name, problems or [f"p{i}" for i in range(len(scores))], scores, **known)


def test_only_common_problems_and_repeats_are_paired() -> None:
    """Guards against pairing by position: the second run has the problems in another order and more repeats."""
    ours = method("ours", [[1, 1], [0, NAN], [1, 1]], ["a", "b", "c"], ttc=[[10, 10], [20, NAN], [99, 99]])
    base = method("base", [[0, 1, 1], [1, 0, 1]], ["b", "a"], ttc=[[5, 5, 5], [5, 5, 5]])
    found = paired(ours, base)
    assert (found.method, found.baseline, found.problems, found.pairs) == ("ours", "base", 2, 3)
    assert found.mean == pytest.approx((0.5 + 0.0) / 2)
    assert found.ttc_ratio == pytest.approx(40 / 15)
    assert found.low < found.mean < found.high


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.01, 0.01, "equal"),
        (-0.004, 0.03, "not worse"),
        (0.005, 0.03, "not worse"),  # above 0, and perhaps by less than would matter
        (0.011, 0.03, "better"),
        (-0.03, -0.011, "worse"),
        (-0.03, -0.005, "open"),
        (-0.03, 0.03, "open"),
    ],
)
def test_verdict_within_a_margin(low: float, high: float, verdict: str) -> None:
    found = paired(method("a", [[1, 1], [0, 1]]), method("b", [[1, 0], [0, 1]]))
    assert replace(found, low=low, high=high).verdict(0.01) == verdict


def test_nothing_in_common_is_said_in_one_line() -> None:
    with pytest.raises(ValueError, match="ours and base have no problem in common; run both on the same problems="):
        paired(method("ours", [[1.0]], ["a"]), method("base", [[1.0]], ["b"]))
    with pytest.raises(ValueError, match=r"no graded \(problem, repeat\) in common"):
        paired(method("ours", [[1.0, NAN]]), method("base", [[NAN, 1.0]]))


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_exact_sign_flip_is_that_of_all_signs(differences: list[int]) -> None:
    values = np.array(differences) / 4
    means = [abs(np.dot(signs, values)) for signs in itertools.product([1, -1], repeat=len(values))]
    assert sign_flip(values) == pytest.approx(np.mean([mean >= abs(values.sum()) - 1e-9 for mean in means]))


def test_random_sign_flips_come_near_and_repeat_themselves() -> None:
    values = np.random.default_rng(3).normal(0.2, 0.5, 40)
    exactly = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(0)
    ).pvalue
    assert sign_flip(values) == sign_flip(values)
    assert sign_flip(values) == pytest.approx(exactly, abs=0.01)
    assert sign_flip(np.ones(100)) > 0
    assert sign_flip(np.zeros(50)) == 1


def test_mcnemar_where_both_have_one_repeat_of_right_or_wrong() -> None:
    ours, base = method("ours", [[1]] * 9 + [[0]] * 3), method("base", [[0]] * 8 + [[1]] * 2 + [[0]] * 2)
    assert paired(ours, base).p_mcnemar == pytest.approx(stats.binomtest(8, 9).pvalue)
    assert paired(ours, ours).p_mcnemar == 1
    assert paired(method("tied", [[0.5]] * 12), base).p_mcnemar is None
    assert paired(method("twice", [[1, 1]] * 12), method("twice", [[1, 0]] * 12)).p_mcnemar is None


def test_a_table_controls_false_discoveries() -> None:
    """20 comparisons without a difference: the smallest p alone would often be a finding."""
    rng = np.random.default_rng(0)
    base = method("base", rng.integers(0, 2, (14, 1)))
    others = [method(f"m{i}", rng.integers(0, 2, (14, 1))) for i in range(20)]
    found = table(others, base)
    p, adjusted = [d.p for d in found], [d.p_adjusted for d in found]
    ranked = np.sort(np.array(p, dtype=float))
    assert min(a for a in adjusted if a is not None) == pytest.approx((ranked * 20 / np.arange(1, 21)).min())
    assert all(a is not None and b is not None and a >= b for a, b in zip(adjusted, p, strict=True))
    assert table([], base) == []


def test_shared_pools_widen_the_interval() -> None:
    """Votes @256 of one pool of 512 with 64 redraws are worth 2 repeats: that problems agree is then luck."""
    rng = np.random.default_rng(0)
    halves = rng.permuted(np.tile([0.0, 1.0], (30, 32)), axis=1)
    base = method("b", np.full((30, 64), 0.5))
    alone, shared = (paired(method("a", halves, independence=worth), base) for worth in (1, 2 / 64))
    assert (alone.mean, shared.mean) == (0, 0)
    assert shared.high - shared.low > 2 * (alone.high - alone.low)


def test_repeats_that_never_differ_are_worth_one() -> None:
    """A greedy run repeated 16 times: three of thirty problems differ, each in all repeats."""
    leads = [1.0] * 3 + [0.0] * 27
    assert difference_interval(leads, 16, 0.1) == pytest.approx(difference_interval(leads, 1, 0.1))


def shared_lines(repeats: int, width: int, pool: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    lines = []
    for repeat in range(repeats):
        each = line("p", repeat)
        drawn = {**each["trajectories"][0][0]}
        first = [{**drawn, "id": f"pool-{member}"} for member in rng.permutation(pool)[:width]]
        lines.append({**each, "trajectories": [first, each["trajectories"][1]]})
    return lines


def test_what_repeats_share_is_read_off_their_trajectories() -> None:
    """With pool=N all repeats draw from the same N: R repeats of width K are worth about N / K at most."""
    (*_, ours) = methods_of(shared_lines(64, 16, 32), "s")
    assert ours.repeats == pytest.approx(64 / (1 + 63 * 16 / 32), rel=0.02)
    assert methods_of([line("p", r) for r in range(4)], "s")[-1].repeats == 4
    assert methods_of(shared_lines(8, 4, 4), "s")[-1].repeats == 1


def test_a_large_run_keeps_a_sample_of_its_names() -> None:
    overlap = Overlap()
    for repeat in range(3):
        overlap.add(f"shared{i}" for i in range(60_000))
        overlap.add(f"{repeat}-{i}" for i in range(60_000))
    assert len(overlap._times) <= KEPT
    assert overlap.independence == pytest.approx((3 * 60 + 180) / (9 * 60 + 180), rel=0.02)


def test_methods_hold_what_the_lines_say() -> None:
    lines = [line("a", 0), line("b", 1, score=0.0, group="hard"), line("a", 1, error="dead", baselines={})]
    single, vote, ours = methods_of(lines, "s")
    assert (single.name, vote.name, ours.name) == ("single sample", "majority vote @4", "s")
    assert (single.k, vote.k, ours.k) == (1, 4, None)
    assert (ours.problems, ours.groups) == (("a", "b"), (None, "hard"))
    np.testing.assert_array_equal(ours.scores, [[1, NAN], [NAN, 0]])
    np.testing.assert_array_equal(ours.ttc, [[500, NAN], [NAN, 500]])
    np.testing.assert_array_equal(ours.failed, [[0, 1], [0, 0]])
    np.testing.assert_array_equal(vote.ttc, [[400, NAN], [NAN, 400]])
    assert np.isnan(vote.seconds).all()


@pytest.mark.parametrize("known", [{"ttc": [1.0]}, {"groups": ("g", "h")}, {"independence": 0}])
def test_a_method_of_the_wrong_shape_is_refused(known: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="m: "):
        method("m", [[1.0]], **known)


def test_a_problem_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="named twice"):
        method("m", [[1.0], [0.0]], ["a", "a"])


def simulated(rng: np.random.Generator, problems: int, repeats: int, lead: float) -> tuple[Method, Method]:
    """Two methods with draws of their own; the lead varies over problems with a standard deviation of 0.1."""
    base = rng.uniform(0.2, 0.6, (problems, 1))
    ours = base + lead + rng.choice([-0.1, 0.1], (problems, 1))
    draws = (rng.random((problems, repeats)) < chance for chance in (ours, base))
    first, second = (method(name, np.where(hit, 1.0, 0.0)) for name, hit in zip("ab", draws, strict=True))
    return first, second


def test_variances_are_told_apart() -> None:
    spreads = [spread_of(*simulated(np.random.default_rng(i), 200, 8, 0.05)) for i in range(20)]
    within = np.mean([spread.within for spread in spreads])
    assert np.mean([spread.between for spread in spreads]) == pytest.approx(0.01, rel=0.35)
    assert within == pytest.approx(2 * 0.24, rel=0.1)
    assert spreads[0].error(200, 8) == pytest.approx(math.sqrt((0.01 + 0.48 / 8) / 200), rel=0.2)


def test_power_is_what_a_simulation_finds() -> None:
    """Plans from one large pilot; then that many problems and repeats see the difference 8 times in 10."""
    spread = spread_of(*simulated(np.random.default_rng(0), 2_000, 16, 0.1))
    needed = problems_needed(spread, 0.1, 4)
    assert needed is not None
    seen = []
    for i in range(400):
        common = np.subtract(*(m.scores for m in simulated(np.random.default_rng(i + 1), needed, 4, 0.1)))
        seen.append(stats.ttest_1samp(common.mean(axis=1), 0).pvalue < 0.05)
    assert np.mean(seen) == pytest.approx(0.8, abs=0.07)
    assert power(spread, 0.1, needed, 4) >= 0.8 > power(spread, 0.1, needed - 1, 4)
    assert smallest_difference(spread, needed, 4) == pytest.approx(0.1, rel=0.02)


def test_more_repeats_need_fewer_problems_up_to_a_point() -> None:
    spread = spread_of(*simulated(np.random.default_rng(0), 500, 8, 0.0))
    plans = designs(spread, 0.01)
    counts = [plan.problems for plan in plans if plan.problems is not None]
    assert len(counts) == 4
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] > (1.96 + 0.84) ** 2 * spread.between / 0.01**2  # no repeats make up for problems that differ


def test_one_repeat_plans_for_one_repeat_only() -> None:
    spread = spread_of(*simulated(np.random.default_rng(0), 100, 1, 0.1))
    assert spread.within is None
    assert [plan.repeats for plan in designs(spread, 0.05)] == [1]
    assert smallest_difference(spread) > 0
    with pytest.raises(ValueError, match="give two repeats or more"):
        spread.error(100, 4)


def test_hopeless_and_senseless_plans() -> None:
    spread = spread_of(*simulated(np.random.default_rng(0), 100, 4, 0.1))
    assert problems_needed(spread, 1e-6, 1) is None
    with pytest.raises(ValueError, match="difference of 0"):
        problems_needed(spread, 0, 1)
    with pytest.raises(ValueError, match="1 graded problems in common"):
        spread_of(method("a", [[1.0, 0.0]]), method("b", [[1.0, 0.0]]))
    same = method("a", [[1.0], [1.0]])
    assert smallest_difference(spread_of(same, same)) == 0


@pytest.mark.parametrize("problems", [3, 10, 60, 400])
@pytest.mark.parametrize("repeats", [1.0, 4.0, 64.0])
def test_the_smallest_difference_is_found_for_any_design(problems: int, repeats: float) -> None:
    """scipy's non-central t is nan far out, where the search for the difference begins."""
    spread = Spread(between=0.0105, within=0.2626, problems=60, repeats=4.0)
    seen = smallest_difference(spread, problems, repeats)
    assert power(spread, seen, problems, repeats) == pytest.approx(0.8, abs=1e-6)
