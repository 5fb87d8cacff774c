"""Grading again: the same trajectories, another grader, nothing sampled, nothing of the run touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pacore_lab.commands import regrade
from pacore_lab.results.disk import read_lines
from tests.outside import invoke


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Three problems whose ground truths the mock backend meets by chance only, two repeats of K = [4]."""
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"question": f"{n}?", "answer": n, "id": f"p{n}"}) + "\n" for n in range(3)))
    out = tmp_path / "out"
    said = invoke("backend=mock", "problems=jsonl", f"problems.path={problems}", "repeats=2", f"out={out}",
                  f"store={tmp_path / 's.sqlite'}")  # fmt: skip
    assert said.code == 0, said.err
    return out


def again(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["regrade", *words])
    regrade.main()


def lines(path: Path) -> list[dict[str, Any]]:
    return list(read_lines(path))


def test_the_same_grader_gives_the_same_grades(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (finished / "results.jsonl").read_bytes()
    again(monkeypatch, str(finished))
    assert (finished / "results.jsonl").read_bytes() == before
    (file,) = (path for path in (finished / "grades").glob("*.jsonl") if "disagreements" not in path.name)
    whole = {(line["request_id"], line["repeat"]): line for line in lines(finished / "results.jsonl")}
    for line in lines(file):
        for key, value in line.items():
            assert whole[line["request_id"], line["repeat"]][key] == value, key
    assert len(lines(file)) == 6
    assert file.with_suffix(".disagreements.jsonl").read_text() == ""
    assert json.loads(file.with_suffix(".json").read_text())["version"].startswith("math ")


def test_another_ground_truth_is_seen_and_listed(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A benchmark that corrects its answers is why one grades again."""
    first = lines(finished / "results.jsonl")[0]
    problems = finished.parent / "problems.jsonl"
    rows = [json.loads(row) for row in problems.read_text().splitlines()]
    for row in rows:
        if row["id"] == first["request_id"]:
            row["answer"] = first["final_answer"]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again(monkeypatch, str(finished))
    listed = lines(next((finished / "grades").glob("*.disagreements.jsonl")))
    mine = [each for each in listed if (each["request_id"], each["repeat"]) == (first["request_id"], first["repeat"])]
    (final,) = [each for each in mine if each["sample"] is None]
    assert (final["old"]["score"], final["new"]["score"]) == (0.0, 1.0)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{first['request_id']} repeat {first['repeat']}: 0.0 -> 1.0" in said


def test_graders_that_disagree_lie_side_by_side(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again(monkeypatch, str(finished))
    again(monkeypatch, str(finished), "grader=none")
    names = {path.name.partition("-")[0] for path in (finished / "grades").iterdir()}
    assert names == {"MathGrader", "NoGrader"}
    grades = next(path for path in (finished / "grades").glob("NoGrader-*.jsonl") if "disagree" not in path.name)
    merged = list(regrade.with_grades(lines(finished / "results.jsonl"), grades))
    assert [line["grade"]["score"] for line in merged] == [None] * 6
    assert all(line["round_responses"] for line in merged)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["grader=nonsense"], "grader/nonsense"),
        (["grader.tmeout=3"], "no key grader.tmeout"),
        (["grader.timeout=0"], "grader.timeout is 0"),
        (["seed=1"], "seed=1: only grader="),
        (["grader=hle"], "grader.judge.model.name"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], said: str, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        again(monkeypatch, str(finished), *words)
    err = capsys.readouterr().err
    assert (end.value.code, err.count("\n")) == (2, 1)
    assert said in err
    assert not (finished / "grades").exists()


def test_a_folder_without_a_run_and_problems_that_changed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        again(monkeypatch, str(tmp_path / "nowhere"))
    assert "nowhere holds no run of this lab" in capsys.readouterr().err
    (tmp_path / "problems.jsonl").write_text('{"question": "Another?", "answer": 1, "id": "p0"}\n')
    with pytest.raises(SystemExit):
        again(monkeypatch, str(finished))
    assert "no longer hold 'p" in capsys.readouterr().err
    assert not list((finished / "grades").glob("*.jsonl"))
