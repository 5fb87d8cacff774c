"""The numbers a researcher quotes: clustered intervals that cover, paired differences, nothing silently dropped."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pacore_lab.analysis import Row, accuracy_interval, difference_interval, summarise, tally
from tests.lines import line


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.method: row for row in rows}


def test_rows_in_order_with_tokens_and_seconds() -> None:
    rows = summarise([line(f"p{i}") for i in range(3)], "pacore_low")
    assert [row.method for row in rows] == ["single sample", "majority vote @4", "pacore_low"]
    single, vote, ours = rows
    assert (single.ttc, vote.ttc, ours.ttc) == (100, 400, 500)
    assert (single.k, vote.k, ours.k) == (1, 4, None)
    assert (vote.seconds, ours.seconds, ours.critical_path) == (None, 2.0, 200)
    assert (ours.problems, ours.episodes, ours.graded) == (3, 3, 3)


def test_accuracy_weighs_problems_not_repeats() -> None:
    """Guards against pooling: a problem with nine repeats would outweigh one with a single repeat."""
    lines = [line("easy", r, 1.0) for r in range(9)] + [line("hard", 0, 0.0)]
    assert summarise(lines, "s")[-1].accuracy == 0.5


def test_the_strategy_minus_each_baseline_is_paired() -> None:
    lines = [line("a", 0, 1.0, single=1.0), line("a", 1, 1.0, single=0.0), line("b", 0, None, single=1.0)]
    difference = summarise(lines, "s")[-1].versus[0]
    assert (difference.method, difference.baseline, difference.problems) == ("s", "single sample", 1)
    assert difference.mean == 0.5  # b was not graded for the strategy: no pair, though the baseline has a score
    assert difference.ttc_ratio == 5


def test_nothing_graded_is_none_never_zero() -> None:
    rows = summarise([line(score=None, single=None, vote=None)], "s")
    for row in rows:
        assert (row.accuracy, row.low, row.high, row.graded, row.ungraded) == (None, None, None, 0, 1)
    assert rows[-1].versus == ()


def test_no_lines_at_all() -> None:
    (row,) = summarise([], "s")
    assert (row.accuracy, row.ttc, row.seconds, row.episodes) == (None, None, None, 0)


def test_failed_episodes_are_counted_and_cost_nothing() -> None:
    """A crash after two tokens would otherwise make the method look cheap."""
    broken = line("b", error="RequestError: too long", tokens={"ttc": 2, "critical_path": 2, "sampled": 1, "reused": 0})
    rows = by_name(summarise([line("a"), broken | {"baselines": {}}], "s"))
    ours = rows["s"]
    assert (ours.episodes, ours.graded, ours.failed, ours.ttc, ours.problems) == (2, 1, 1, 500, 2)
    assert rows["single sample"].failed == 1


def test_a_baseline_survives_the_failure_of_the_strategy() -> None:
    rows = by_name(summarise([line("b", error="dead", single=1.0)], "s"))
    assert rows["single sample"].accuracy == 1.0
    assert rows["s"].accuracy is None


def test_baselines_equal_to_the_strategy_are_left_out() -> None:
    same = {"k": 1, "score": 1.0, "ttc": 500.0, "critical_path": 200.0}
    assert [row.method for row in summarise([line(baselines={"single": same})], "single")] == ["single"]
    sequential = {"k": 1, "score": 1.0, "ttc": 100.0, "critical_path": 100.0}
    assert len(summarise([line(baselines={"single": sequential})], "sequential")) == 2


def test_a_varying_first_round_is_named_by_its_range() -> None:
    wide = line("b")
    wide["baselines"] = json.loads(json.dumps(wide["baselines"]))
    wide["baselines"]["majority_vote"]["k"] = 16
    row = summarise([line("a"), wide], "adaptive")[1]
    assert (row.method, row.k) == ("majority vote @4–16", None)


def test_it_streams() -> None:
    """Texts of a 500-problem run do not fit in memory: every line is dropped before the next is read."""
    alive = 0

    class Big(dict[str, Any]):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def lines() -> Iterator[Big]:
        nonlocal alive
        for i in range(50):
            alive += 1
            assert alive <= 3
            yield Big(line(f"p{i}"))

    summarise(lines(), "s")
    tally(lines())


def test_tally_counts_by_reason() -> None:
    late = line("b", error="EngineDead: gone\ntraceback")
    cut = line("c", score=None)
    cut["trajectories"] = [
        [
            {"finish_reason": "length", "error": None, "counted": True},
            {"finish_reason": "", "error": "failed: reset", "counted": True},
            {"finish_reason": "", "error": "aborted", "counted": True},
        ]
    ]
    counts = tally([line("a"), late, cut])
    assert (counts.episodes, counts.sampled, counts.reused, counts.truncated) == (3, 12, 3, 1)
    assert counts.reasons == {
        ("episode", "EngineDead: gone"): 1,
        ("ungraded", "no ground truth"): 1,
        ("trajectory", "failed: reset"): 1,
    }


def test_reasons_do_not_grow_without_bound() -> None:
    reasons = tally(line(error=f"request {i} failed") for i in range(2000)).reasons
    assert len(reasons) <= 502
    assert sum(reasons.values()) == 2000


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


@pytest.mark.parametrize(("problems", "repeats", "mean"), [(10, 4, 0.9), (30, 1, 0.9), (30, 4, 0.97), (30, 16, 0.5)])
def test_coverage_of_the_accuracy_interval(problems: int, repeats: int, mean: float) -> None:
    """Nominal 95 %; Student's t alone covers 85 to 90 % in the first and third setting."""
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
        low, high = difference_interval(leads.tolist(), repeats)
        hits.append(low <= lead <= high)
    assert np.mean(hits) >= 0.92


@pytest.mark.parametrize("repeats", [1, 4, 64])
@pytest.mark.parametrize("lead", [-1.0, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("problems", [1, 2, 30, 1000])
def test_agreeing_problems_are_not_certainty(problems: int, lead: float, repeats: int) -> None:
    low, high = difference_interval([lead] * problems, repeats)
    assert -1 <= low <= lead <= high <= 1
    assert low < high


def test_rows_are_plain_values() -> None:
    row = summarise([line()], "s")[-1]
    assert replace(row, method="t").method == "t"
    assert all(type(v) in (int, float, str, tuple, type(None)) for v in (row.accuracy, row.low, row.high, row.ttc))
