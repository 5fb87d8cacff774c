"""Runs side by side: paired on common draws, every remark that qualifies them, nothing invented where nothing is."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pacore_lab.commands import compare
from pacore_lab.errors import ConfigError
from pacore_lab.showing import plots
from tests.lines import line

SETTINGS = {"seed": 0, "pool": None, "problems": {"n": 3}}
VERSIONS = {"strategy": "pacore_low", "grader": "math 2", "backend": {"fingerprint": "w"}}


def folder(
    path: Path, lines: Iterator[dict[str, Any]], settings: dict[str, Any] | None = None, **versions: Any
) -> Path:
    path.mkdir()
    (path / "settings.json").write_text(json.dumps(SETTINGS | (settings or {})))
    (path / "versions.json").write_text(json.dumps(VERSIONS | versions))
    (path / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def run(score: Callable[[int, int], float | None], problems: int = 20, repeats: int = 2, **extra: Any) -> Iterator[Any]:
    return (line(f"p{p}", r, score(p, r), **extra) for p in range(problems) for r in range(repeats))


def test_two_runs_and_their_common_baselines(tmp_path: Path) -> None:
    better = folder(tmp_path / "a", run(lambda p, r: 1.0), strategy="better")
    worse = folder(tmp_path / "b", run(lambda p, r: float(p < 5)), strategy="worse")
    found = compare.compare([better, worse])
    assert [method.name for method in found.methods] == ["single sample", "majority vote @4", "better", "worse"]
    lost = next(each for each in found.differences if each.method == "worse")
    assert (lost.baseline, lost.mean, lost.pairs, lost.ttc_ratio) == ("better", -0.75, 40, 1.0)
    assert lost.p is not None
    assert lost.p < 0.001
    assert lost.p_adjusted is not None
    assert lost.p_adjusted >= lost.p
    other = compare.compare([better, worse], baseline="majority vote @4")
    gain = next(each for each in other.differences if each.method == "better")
    assert (gain.mean, gain.ttc_ratio) == (0.5, 1.25)


def test_one_run_is_compared_with_its_own_baselines(tmp_path: Path) -> None:
    found = compare.compare([folder(tmp_path / "a", run(lambda p, r: 1.0))])
    assert [each.method for each in found.differences] == ["single sample", "majority vote @4"]


def test_runs_of_one_strategy_are_told_apart(tmp_path: Path) -> None:
    outs = [folder(tmp_path / name, run(lambda p, r, s=s: s)) for name, s in (("x", 1.0), ("y", 0.0))]  # type: ignore[misc]
    found = compare.compare(outs)
    assert [each.method for each in found.differences][-1] == "pacore_low (y)"


def test_what_makes_a_comparison_unfair_is_said(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", run(lambda p, r: 1.0), strategy="a")
    others = [
        folder(tmp_path / "b", run(lambda p, r: 0.0), strategy="b", backend={"fingerprint": "other"}),
        folder(tmp_path / "c", run(lambda p, r: 0.0), {"seed": 1}, strategy="c", grader="math 1"),
        folder(tmp_path / "d", run(lambda p, r: 0.0, 3), {"problems": {"n": 9}}, strategy="d"),
    ]
    said = "\n".join(compare.compare([first, *others]).remarks)
    assert f"{others[0]} is of another model or engine" in said
    assert f"{others[1]} has another seed or pool" in said
    assert f"{others[1]} was graded by math 1, {first} by math 2: regrade one of them" in said
    assert f"{others[2]} has other problem settings" in said
    assert "would take" in said  # and the power of each comparison


def test_what_cannot_be_compared_is_one_line(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", run(lambda p, r: 1.0))
    ungraded = folder(tmp_path / "b", run(lambda p, r: None), strategy="none")
    elsewhere = folder(tmp_path / "c", iter([line("q")]), strategy="elsewhere")
    old = folder(tmp_path / "d", run(lambda p, r: 1.0))
    (old / "versions.json").write_text("{}")
    for outs, options, message in [
        ([first, ungraded], {}, "none has no graded episode"),
        ([first, elsewhere], {}, "no problem in common"),
        ([first, tmp_path / "e"], {}, "holds no run of this lab"),
        ([first, old], {}, "older version"),
        ([first], {"baseline": "vote"}, "'vote' is not a method of these runs, which have: single sample"),
        ([first], {"grades": "MathGrader-1"}, "has no grades 'MathGrader-1'; it has: none"),
    ]:
        with pytest.raises(ConfigError, match=message):
            compare.compare(outs, **options)  # type: ignore[arg-type]


def test_grades_of_a_regrading_replace_the_runs_own(tmp_path: Path) -> None:
    out = folder(tmp_path / "a", run(lambda p, r: 0.0))
    (out / "grades").mkdir()
    again = [line(f"p{p}", r, 1.0) for p in range(20) for r in range(2)]
    kept = ("request_id", "repeat", "grade", "samples", "baselines", "final_answer", "judge_tokens", "ground_truth")
    text = "".join(json.dumps({key: each[key] for key in kept}) + "\n" for each in again)
    (out / "grades" / "Other-1.jsonl").write_text(text)
    (out / "grades" / "Other-1.json").write_text("{}")
    assert compare.compare([out]).baseline.problem_means.mean() == 0.0
    assert compare.compare([out], grades="Other-1").baseline.problem_means.mean() == 1.0


def test_the_command_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [
        folder(tmp_path / "a", run(lambda p, r: 1.0), strategy="better \x1b[31m<b>"),
        folder(tmp_path / "b", run(lambda p, r: 0.0), strategy="worse"),
    ]
    monkeypatch.setattr("sys.argv", ["compare", *map(str, outs), "--to", str(tmp_path / "to" / "here")])
    monkeypatch.setenv("COLUMNS", "120")
    compare.main()
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "−100.0 [" in said
    assert "a vote of up to 0.40k tokens does not reach better <b>'s 100.0 %" in said
    names = {path.name for path in (tmp_path / "to" / "here").iterdir()}
    pictures = {f"accuracy_vs_{cost}.{kind}" for cost in plots.AXES for kind in ("svg", "png")}
    assert names == {"methods.csv", "differences.csv", *pictures}
    rows = list(csv.DictReader((tmp_path / "to" / "here" / "methods.csv").read_text().splitlines()))
    assert [row["pareto"] for row in rows] == ["True", "True", "True", "False"]
    assert "<b>" not in (tmp_path / "to" / "here" / "accuracy_vs_ttc.svg").read_text()


@pytest.mark.parametrize(
    "wrong", [["--to", "file"], ["--margin", "a lot"], ["--margin", "0"], ["--margin", "nan"]], ids=str
)
def test_mistakes_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    out = folder(tmp_path / "a", run(lambda p, r: 1.0))
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["compare", str(out), *wrong])
    with pytest.raises(SystemExit) as end:
        compare.main()
    err = capsys.readouterr().err
    assert (end.value.code, err.count("\n"), wrong[0] in err) == (2, 1, True)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "file"}


def test_a_margin_adds_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [
        folder(tmp_path / name, run(score, 400), strategy=name)
        for name, score in (("base", lambda p, r: float(p % 2)), ("same", lambda p, r: float(p % 2 or p == 0)))
    ]
    monkeypatch.setattr("sys.argv", ["compare", *map(str, outs), "--margin", "2", "--to", str(tmp_path / "to")])
    compare.main()
    assert "within ±2" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "to" / "differences.csv").read_text().splitlines()))
    assert [(row["margin"], row["verdict"]) for row in rows if row["method"] == "same"] == [("0.02", "equal")]


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e7)), min_size=1, max_size=12), st.booleans())
@example(values=[(0.5, 9999999.999999998)], whole=False)
def test_any_points_can_be_drawn(values: list[tuple[float, float]], whole: bool) -> None:
    """A cost of 0, equal costs, $ and \\ in names: matplotlib fails on less."""
    shown = [plots.Point(name="$m_{", cost=cost, accuracy=share, low=0.0, high=1.0) for share, cost in values]
    pictures = plots.draw(shown, whole=whole, front=shown)
    assert pictures["png"].startswith(b"\x89PNG")
    assert b"<svg" in pictures["svg"]
