"""The rows and counts a researcher quotes: paired with the baselines, weighed by problem, nothing silently dropped."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pacore_lab.analysis import Row, calibration_error, summarise, tally
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


def test_rows_are_plain_values() -> None:
    row = summarise([line()], "s")[-1]
    assert replace(row, method="t").method == "t"
    assert all(type(v) in (int, float, str, tuple, type(None)) for v in (row.accuracy, row.low, row.high, row.ttc))


def graded(problem: str, repeat: int = 0, score: float | None = 1.0, **grade: Any) -> dict[str, Any]:
    made = line(problem, repeat, score)
    return {**made, "grade": {**made["grade"], **grade}}


def test_groups_and_their_unweighted_mean() -> None:
    """MultiChallenge's score: an axis of one problem counts as much as one of three."""
    axes = [("a", "x", 1.0), ("b", "y", 0.0), ("c", "y", 0.0), ("d", "y", 1.0)]
    row = summarise([line(problem, 0, score, group=axis) for problem, axis, score in axes], "s")[-1]
    assert [(g.name, g.problems, g.graded, g.accuracy) for g in row.groups] == [("x", 1, 1, 1.0), ("y", 3, 3, 1 / 3)]
    assert row.accuracy == 0.5
    assert row.group_mean == pytest.approx(2 / 3)
    assert row.group_low is not None
    assert row.group_high is not None
    assert 0 <= row.group_low < 2 / 3 < row.group_high <= 1


def test_a_group_without_a_grade_leaves_no_mean() -> None:
    row = summarise([line("a", group="x"), line("b", score=None, group="y")], "s")[-1]
    assert (row.groups[1].accuracy, row.groups[1].graded, row.group_mean) == (None, 0, None)
    assert summarise([line("a")], "s")[-1].groups == ()


def test_warnings_are_counted_by_kind() -> None:
    doubted = graded("a", warnings=["several boxes", "rounded"])
    doubted["samples"] = [{**sample, "warnings": ["several boxes"]} for sample in doubted["samples"]]
    counts = tally([doubted, line("b")]).warnings
    assert counts == {("answer", "several boxes"): 1, ("answer", "rounded"): 1, ("sample", "several boxes"): 4}


def test_judge_tokens_are_apart_from_ttc() -> None:
    row = summarise([line("a", judge_tokens=10), line("b", judge_tokens=30)], "s")[-1]
    assert (row.judge_tokens, row.ttc) == (20, 500)


def test_calibration_of_stated_confidence() -> None:
    row = summarise([graded("a", score=1.0, details={"confidence": 0.6}), graded("b", score=0.0)], "s")[-1]
    assert row.calibration_error == pytest.approx(0.4)
    assert summarise([line("a")], "s")[-1].calibration_error is None


@pytest.mark.parametrize("said", [1.01, -1, "0.9", True, None, math.nan, math.inf, [1]])
def test_a_confidence_that_is_no_probability_is_none(said: Any) -> None:
    """It was a model that said it."""
    assert summarise([graded("a", details={"confidence": said})], "s")[-1].calibration_error is None


def test_calibration_bins_are_of_equal_count_and_sorted() -> None:
    """Bins in order of arrival would average over- and underconfidence away."""
    confidence, scores = np.repeat([0.9, 0.1], 100), np.repeat([0.5, 0.5], 100)
    mixed = np.random.default_rng(0).permutation(200)
    assert calibration_error(confidence[mixed], scores[mixed]) == pytest.approx(0.4)
    assert calibration_error(confidence[:199], scores[:199]) == pytest.approx(abs(confidence[:199].mean() - 0.5))
