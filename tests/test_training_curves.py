"""Training curves: rates pooled over windows with honest intervals, trainers' logs, bad ones in one line."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacore_lab.analysis.ratios import pooled_interval
from pacore_lab.errors import ConfigError, DataError
from pacore_lab.training import curves
from pacore_lab.training.environment import Counts
from pacore_lab.training.logs import read_accuracy, read_log, windows


def step(number: int, wrong: int = 0, emergent: int = 0, **extra: Any) -> dict[str, Any]:
    counts = {"responses": 64, "graded": 64, "reward": 20.0, "all_wrong": wrong, "emergent": emergent,
              "cross_checks": 32, "concluding": 8}  # fmt: skip
    return {"step": number, "reward": 0.5, "length": 100.0, "entropy": None, "counts": counts, **extra}


def log(path: Path, *steps: dict[str, Any], end: str = "") -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in steps) + end)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["curves", *map(str, words)])
    curves.main()


def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, *words)
    err = capsys.readouterr().err
    assert (end.value.code, err.count("\n")) == (2, 1)
    return err


def test_rates_are_pooled_over_a_window(tmp_path: Path) -> None:
    """A mean of the steps' ratios: 1 of 1 and 0 of 63 would be a half."""
    steps = read_log(log(tmp_path / "a", step(1, 1, 1), step(2, 63), step(100), step(101, 10, 5), step(201)))
    found = windows(steps, 100)
    assert [(each.first, each.last, each.all_wrong, each.emergent) for each in found] == [
        (1, 100, 64, 1), (101, 101, 10, 5), (201, 201, 0, 0)
    ]  # fmt: skip
    assert [each.rate for each in found] == [1 / 64, 0.5, None]
    assert found[0].low is not None
    assert found[0].high is not None
    assert found[0].low < 1 / 64 < found[0].high
    assert (found[2].low, found[2].high) == (None, None)


def test_windows_begin_with_the_log_and_means_leave_out_what_is_missing(tmp_path: Path) -> None:
    steps = read_log(
        log(tmp_path / "a", step(251, reward=None), step(252, reward=0.4, length=None), {"step": 261, "reward": 1})
    )
    found = windows(steps, 10)
    assert [(each.first, each.last, each.reward, each.length) for each in found] == [
        (251, 252, 0.4, 100.0), (261, 261, 1, None)
    ]  # fmt: skip
    assert found[1].all_wrong is None


def test_a_log_has_the_counts_of_the_environment(tmp_path: Path) -> None:
    """Names of `Counts` that are not those of the log."""
    made = Counts(responses=4, graded=3, reward=1.5, all_wrong=2, emergent=1, cross_checks=7, concluding=2)
    counts = {name: getattr(made, name) for name in made.__dataclass_fields__}
    [read] = read_log(log(tmp_path / "a", {"step": 1, "counts": counts}))
    assert read.counts == {name: value for name, value in counts.items() if name != "reward"}


def test_steps_that_were_trained_again_replace_those_from_there_on(tmp_path: Path) -> None:
    """A resumed training counted its steps twice, and kept those that it never reached again."""
    first = [step(n, length=1.0) for n in range(1, 8)]
    steps = read_log(log(tmp_path / "a", *first, *(step(n, length=2.0) for n in (4, 5))))
    assert [(each.step, each.length) for each in steps] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)]


def test_only_the_last_line_may_be_cut(tmp_path: Path) -> None:
    assert len(read_log(log(tmp_path / "a", step(1), end='{"step": 2, "rew'))) == 1
    with pytest.raises(DataError, match=r"b:2: not JSON"):
        read_log(log(tmp_path / "b", step(1), end='{"step": 2, "rew\n{"step": 3}\n'))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1]", "a step is a JSON object"),
        ('{"reward": 1}', "step is None"),
        ('{"step": true}', "step is True"),
        ('{"step": -1}', "step is -1"),
        ('{"step": 1, "reward": "high"}', "reward is 'high'"),
        ('{"step": 1, "length": NaN}', "length is nan"),
        ('{"step": 1, "counts": 3}', "counts is not a JSON object"),
        ('{"step": 1, "counts": {"responses": -1}}', "responses is -1; give a number of 0 or more"),
        ('{"step": 1, "counts": {"responses": 4, "graded": 4, "all_wrong": 1, "emergent": 2}}', "must grow"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(DataError, match=rf"^{re.escape(str(tmp_path))}/a:2: .*{re.escape(said)}"):
        read_log(log(tmp_path / "a", step(1), end=line + "\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": [\n{"step": 1,}]}', ":2: not JSON"),
        ("[]", ":1: give"),
        ('{"a": [{"step": 0, "mean": 3, "low": 2, "high": 4}, {"step": 1, "mean": 3}]}', "'a', entry 2: give low"),
        ('{"a": [{"step": 0, "mean": 0.3, "low": 0.4, "high": 0.5}]}', "ascending"),
        ('{"a": [{"mean": 3, "low": 2, "high": 4}]}', "step is None"),
    ],
)
def test_a_bad_table_of_accuracies_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=re.escape(said)):
        read_accuracy(tmp_path / "a.json")


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted), min_size=1, max_size=30))
def test_an_interval_holds_its_rate(clusters: list[list[int]]) -> None:
    successes, trials = [won for won, _ in clusters], [n for _, n in clusters]
    if not sum(trials):
        with pytest.raises(ValueError, match="no trials"):
            pooled_interval(successes, trials)
        return
    low, high = pooled_interval(successes, trials)
    assert 0 <= low <= sum(successes) / sum(trials) <= high <= 1
    assert low < high


def test_responses_of_one_step_are_not_taken_for_independent() -> None:
    """All or nothing in each step: 64 responses say as much as one."""
    alike = pooled_interval([64, 0] * 10, [64] * 20)
    assert alike == pytest.approx(pooled_interval([1, 0] * 10, [1] * 20), abs=1e-9)
    spread = pooled_interval([32] * 20, [64] * 20)
    assert spread[1] - spread[0] < (alike[1] - alike[0]) / 4


def test_nothing_seen_is_no_certainty() -> None:
    low, high = pooled_interval([0] * 20, [1000] * 20)
    assert low == 0
    assert high > 0.1  # as of 20 trials, not of 20,000


def test_intervals_cover() -> None:
    """Naive binomial intervals hold the truth in a quarter of these simulations."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        instances = rng.binomial(16, 0.3, 100)
        chances = [rng.beta(0.025, 0.475, n) for n in instances]
        emergent = [int(rng.binomial(64, chance).sum()) for chance in chances]
        low, high = pooled_interval(emergent, (64 * instances).tolist())
        held += low <= 0.05 <= high
    assert held / 200 > 0.9


@given(st.lists(st.tuples(st.integers(1, 5), st.none() | st.floats(-9, 9)), min_size=1, max_size=30), st.integers(1, 9))
def test_a_running_mean_is_that_of_its_neighbours(steps: list[tuple[int, float | None]], width: int) -> None:
    xs = np.cumsum([gap for gap, _ in steps]).tolist()
    ys = [y for _, y in steps]
    for x, mean in zip(xs, curves.running_mean(xs, ys, width), strict=True):
        near = [y for at, y in zip(xs, ys, strict=True) if abs(at - x) <= width / 2 and y is not None]
        assert mean == pytest.approx(sum(near) / len(near)) if near else math.isnan(mean)


def test_the_command_draws_and_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = log(tmp_path / "ours", *(step(n, 10, n // 100) for n in range(1, 251)))
    bare = log(tmp_path / "bare", *({"step": n, "reward": 0.1} for n in range(1, 251)))
    (tmp_path / "accuracy.json").write_text('{"ours": [{"step": 0, "mean": 30, "low": 25, "high": 36}]}')
    to = tmp_path / "plots" / "curves.svg"
    run(monkeypatch, f"ours={ours}", f"_$x\x1b[31m={bare}", "--accuracy", tmp_path / "accuracy.json", "--to", to)
    said = capsys.readouterr().out
    assert "1–100" in said
    assert re.search(r"201–250\s+0\.500\s+100\s+500\s+100\s+20\.00 \[", said)
    assert "\x1b" not in said
    drawn = to.read_text()
    for title in ("Reward", "Response length", "Emergent correctness", "Cross-checking", "Benchmark accuracy", "_$x"):
        assert title in drawn


def test_what_no_log_has_gets_no_panel(tmp_path: Path) -> None:
    steps = {"a": read_log(log(tmp_path / "a", {"step": 1, "reward": 0.5}, {"step": 2, "reward": None}))}
    figure = curves.draw(steps, {}, 100)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Reward"]
    with pytest.raises(ConfigError, match="nothing to draw"):
        curves.draw({"a": read_log(log(tmp_path / "b", {"step": 1}))}, {}, 100)


def test_a_window_without_wrong_messages_is_a_gap(tmp_path: Path) -> None:
    """Drawn as 0: it looks as if the model had unlearned it."""
    steps = {"a": read_log(log(tmp_path / "a", step(1, 4, 1), step(11), step(21, 4, 2)))}
    [axes] = [axes for axes in curves.draw(steps, {}, 10).axes if "Emergent" in axes.get_title(loc="left")]
    [line] = [line for line in axes.get_lines() if line.get_linestyle() == "-" and len(line.get_xdata()) == 3]
    assert np.isnan(line.get_ydata()).tolist() == [False, True, False]


def test_mistakes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = f"a={log(tmp_path / 'good', step(1))}"
    empty = log(tmp_path / "empty")
    to = ("--to", tmp_path / "x.png")
    for words, said in (
        ((f"a={tmp_path / 'none'}", *to), "cannot be read (No such file or directory)"),
        ((f"a={tmp_path}", *to), "cannot be read (Is a directory)"),
        ((f"a={empty}", *to), "holds no steps yet"),
        ((tmp_path / "good", *to), "is not NAME=LOG"),
        ((good, good, *to), "two logs are called a"),
        ((good, "--window", 0, *to), "--window is 0"),
        ((good, "--to", tmp_path / "x.pdf"), "neither .png nor .svg"),
        ((good, "--to", tmp_path / "good" / "x.png"), "cannot be written"),
    ):
        assert said in fails(monkeypatch, capsys, *words)
