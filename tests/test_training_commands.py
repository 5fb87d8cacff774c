"""Pools from runs and the two filters, by their commands, on runs of the mock backend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from pacore_lab.sampling.names import digest
from pacore_lab.training import filters, pools
from pacore_lab.training.records import Record, read_records, write_records
from pacore_lab.types import Message
from tests.doubles import user
from tests.outside import invoke, lines_of, write_jsonl

QUESTIONS = [{"question": f"{n}?", "answer": f"{n}.0", "id": f"p{n}"} for n in range(3)]
TESTS = {"inputs": ["1\n"], "outputs": ["2\n"], "fn_name": None}


def run(folder: Path, name: str, *words: str, questions: list[dict[str, Any]] = QUESTIONS) -> Path:
    problems = write_jsonl(folder / f"{name}.problems.jsonl", questions)
    out = folder / name
    said = invoke("backend=mock", "backend.answers=3", "problems=jsonl", f"problems.path={problems}", f"out={out}",
                  f"store={folder / 'store.sqlite'}", *words)  # fmt: skip
    assert said.code == 0, said.err
    return out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three problems, two repeats of K = [4] under pool=6: eight first-round draws, of which at most six differ."""
    folder = tmp_path_factory.mktemp("run")
    return run(folder, "out", "strategy=pacore_low", "repeats=2", "pool=6")


def pool(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["pools", *map(str, words)])
    pools.main()


def sieve(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["filters", *map(str, words)])
    filters.main()


def fails(capsys: pytest.CaptureFixture[str], end: pytest.ExceptionInfo[SystemExit], said: str) -> None:
    err = capsys.readouterr().err
    assert (end.value.code, err.count("\n")) == (2, 1)
    assert said in err


def test_a_pool_is_the_first_rounds_conclusions_with_their_grades(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Draws that two repeats share counted twice, second-round answers among them, scores of other messages."""
    to = tmp_path / "pool.jsonl"
    pool(monkeypatch, finished, "--messages", 4, "--to", to)
    drawn: dict[str, dict[str, tuple[str, float]]] = {}
    for line in lines_of(finished / "results.jsonl"):
        scores = {sample["id"]: sample["score"] for sample in line["samples"]}
        for text, fact in zip(line["round_responses"][0], line["trajectories"][0], strict=True):
            message = text["content"].split("</think>")[-1]
            drawn.setdefault(line["request_id"], {})[fact["id"]] = (message, scores[fact["id"]])
    records = read_records(to)
    assert [record.id for record in records] == list(drawn)
    for record in records:
        mine = drawn[record.id]
        order = sorted(mine, key=lambda name: digest(["message", name]))[:4]
        assert list(zip(record.responses, record.scores, strict=True)) == [mine[name] for name in order]
        assert record.answer == f"{record.id[1:]}.0"
        assert record.conversation == user(f"{record.id[1:]}?")
    said = " ".join(capsys.readouterr().out.split())
    right = sum(score or 0 for record in records for score in record.scores)
    assert f"math 3 12 12 {100 * right / 12:.1f}" in said


def test_pools_of_several_runs_and_what_is_dropped(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another set's "p0" must not become the first one's; a problem without answer or turns of text has no record."""
    turn = {"role": "user", "content": [{"type": "text", "text": "In parts?"}]}
    others = [
        {"question": "another 0?", "answer": "0", "id": "p0"},
        {"question": "ungraded?", "id": "u"},
        {"messages": [turn], "ground_truth": {"answer": "1"}, "id": "parts"},
    ]
    other = run(tmp_path, "other", "strategy=majority_vote", "strategy.k=4", questions=others)
    few = run(tmp_path, "few", "strategy=single", questions=[{"question": "few?", "answer": "1", "id": "few"}])
    pool(monkeypatch, finished, other, few, "--messages", 4, "--to", tmp_path / "pool.parquet")
    records = {record.id: record for record in read_records(tmp_path / "pool.parquet")}
    (new,) = set(records) - {"p0", "p1", "p2"}
    assert new.startswith("p0-")
    assert records[new].conversation == user("another 0?")
    said = " ".join(capsys.readouterr().out.split())
    for why in ("fewer than 4 messages", "no ground truth with an", "its conversation or ground truth does not fit"):
        assert f"{why} " in said
    again = pools.pools([finished, finished], messages=4).records
    assert again == pools.pools([finished], messages=4).records


def test_a_compaction_of_ones_own_and_failed_trajectories(tmp_path: Path) -> None:
    """A trajectory that failed or is empty is no message, as in the core; nor is text that no file can hold."""
    out = run(tmp_path, "out", "strategy=majority_vote", "strategy.k=4", questions=QUESTIONS[:1])
    (line,) = lines_of(out / "results.jsonl")
    line["trajectories"][0][0]["error"] = "failed: gone"
    line["round_responses"][0][1]["content"] = ""
    line["round_responses"][0][2]["content"] = "\ud800"
    write_jsonl(out / "results.jsonl", [line])
    assert not pools.pools([out], messages=2).records
    (record,) = pools.pools(
        [out], messages=1, compact=lambda ts: pools.conclusions([t for t in ts if t.index == 3])
    ).records
    assert record.responses == (line["round_responses"][0][3]["content"].split("</think>")[-1],)
    (record,) = pools.pools([out], messages=1, compact=lambda ts: (Message(text="same", sources=(ts[0].id,)),)).records
    assert record.responses == ("same",)


def test_ungraded_samples_stay_ungraded(tmp_path: Path) -> None:
    out = run(tmp_path, "out", "strategy=majority_vote", "strategy.k=4", "grader=none")
    found = pools.pools([out], messages=4)
    assert all(record.scores == (None,) * 4 for record in found.records)
    assert filters.stage1(found.records).dropped == {"not all messages graded": 3}


def test_tests_come_from_where_the_problems_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A run's lines hold a digest of the tests only; tests that changed since are another problem's."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "hf")
    row = {"conversation": list(user("Say 2.")), "responses": [], "ground_truth": TESTS}
    file = write_jsonl(tmp_path / "train.jsonl", [row])
    words = ("backend=mock", "problems=pacore_train_8k_stage1", f"problems.path={file}", "strategy=majority_vote")
    places = (f"out={tmp_path / 'out'}", f"store={tmp_path / 'store.sqlite'}")
    assert invoke(*words, *places, "strategy.k=2", "grader=none").code == 0
    monkeypatch.setattr(
        "sys.argv", ["pools", str(tmp_path / "out"), "--messages", "2", "--to", str(tmp_path / "p.jsonl")]
    )
    pools.main()
    (record,) = read_records(tmp_path / "p.jsonl")
    assert record.domain == "code"
    assert record.reference == {"tests": [{"testtype": "stdin", "input": "1\n", "output": "2\n"}], "fn_name": None}
    write_jsonl(file, [{**row, "ground_truth": {**TESTS, "outputs": ["3\n"]}}])
    with pytest.raises(SystemExit):
        pools.main()


def test_training_on_what_is_evaluated_is_refused(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = run(tmp_path, "held_out", "strategy=single", questions=[QUESTIONS[1] | {"id": "other name"}])
    to = tmp_path / "pool.jsonl"
    with pytest.raises(SystemExit) as end:
        pool(monkeypatch, finished, "--messages", 4, "--to", to, "--not-in", held_out)
    fails(capsys, end, f"1 of 3 training problems are also asked in {held_out}, the first is 'p1'")
    assert not to.exists()
    elsewhere = run(tmp_path, "elsewhere", "strategy=single", questions=[{"question": "9?", "answer": "9"}])
    pool(monkeypatch, finished, "--messages", 4, "--to", to, "--not-in", elsewhere)
    assert len(read_records(to)) == 3


def test_mistakes_are_one_line(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "pool.jsonl"
    ungraded = run(tmp_path, "ungraded", "strategy=single", "grader=none")
    changed = run(tmp_path, "changed", "strategy=single", questions=[QUESTIONS[0] | {"answer": "5"}])
    mistakes = {
        (tmp_path / "nowhere",): "nowhere holds no run of this lab",
        (finished, ungraded): "the runs were graded differently",
        (finished, changed): "'p0' has another ground truth in",
        (finished, "--messages", 99): "no problem is left; nothing was written",
        (finished, "--messages", 0): "--messages is 0",
        (finished, "--grades", "x"): "has no grades 'x'",
    }
    for words, said in mistakes.items():
        with pytest.raises(SystemExit) as end:
            pool(monkeypatch, *words, "--to", to)
        fails(capsys, end, said)
    assert not to.exists()


def test_grades_of_a_regrading(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = tmp_path / "grades"
    (finished / "grades").mkdir(exist_ok=True)
    lines = lines_of(finished / "results.jsonl")
    for line in lines:
        line["samples"] = [{**sample, "score": 0.75} for sample in line["samples"]]
    write_jsonl(again, [{key: line[key] for key in ("request_id", "repeat", "samples")} for line in lines])
    again.rename(finished / "grades" / "mine.jsonl")
    pool(monkeypatch, finished, "--messages", 4, "--grades", "mine", "--to", tmp_path / "pool.jsonl")
    assert {score for record in read_records(tmp_path / "pool.jsonl") for score in record.scores} == {0.75}


def record(name: str, *scores: float | None, code: bool = False) -> Record:
    tests = {"tests": [{"testtype": "stdin", "input": "1\n", "output": "2\n"}], "fn_name": None}
    truth: dict[str, Any] = {"reference": tests} if code else {"answer": name.partition(" ")[2] or "1"}
    texts = tuple(str(place) for place in range(len(scores)))
    return Record(id=name, conversation=user(f"{name}?"), responses=texts, scores=scores, **truth)


def test_stage1_keeps_what_is_neither_hopeless_nor_easy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both bounds are strict; a message that nobody graded is no wrong one."""
    right = [1.0] * 24 + [0.0] * 24
    records = [
        record("none", *right[24:]),
        record("one", *right[23:47]),
        record("8 of 24", *right[16:40]),
        record("9 of 24", *right[15:39]),
        record("code 14 of 24", *right[10:34], code=True),
        record("code 15 of 24", *right[9:33], code=True),
        record("ungraded", *right[16:39], None),
        record("empty"),
    ]
    file, to = tmp_path / "pool.jsonl", tmp_path / "stage1.parquet"
    write_records(file, records)
    sieve(monkeypatch, "stage1", file, "--to", to)
    assert [each.id for each in read_records(to)] == ["one", "8 of 24", "code 14 of 24"]
    said = " ".join(capsys.readouterr().out.split())
    assert "code 1 24 24 58.3 math 2 48 48 18.8" in said
    reached = [f"{domain}: mean message accuracy {most} or more" for domain, most in (("math", 0.375), ("code", 0.625))]
    for why in ("no message right", *reached, "not all messages graded", "no messages"):
        assert f"{why} 1" in said
    sieve(monkeypatch, "stage1", file, "--to", to, "--math", 0.04, "--code", 1)
    assert [each.id for each in read_records(to)] == ["code 14 of 24", "code 15 of 24"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        sieve(monkeypatch, "stage1", file, "--to", to, "--math", 2)
    fails(capsys, end, "--math is 2; give a share above 0")


def test_stage2_keeps_what_the_checkpoint_sometimes_solves() -> None:
    scores = {"mixed": [0.0, 1.0], "share": [0.5], "never": [0.0, 0.0], "always": [1.0], "unknown": [0.0, 1.0, None]}
    found = filters.stage2([record(name) for name in [*scores, "missing"]], scores)
    assert [each.id for each in found.records] == ["mixed", "share"]
    assert found.dropped == {
        "synthesis accuracy 0": 1,
        "synthesis accuracy 1": 1,
        "not all answers graded": 1,
        "not answered": 1,
    }


def test_stage2_by_a_run_on_the_records_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    """The run's ids are its own (stage1-0, ...): problems are told by what they ask."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "hf")
    file, out, to = tmp_path / "stage1.jsonl", tmp_path / "out", tmp_path / "stage2.jsonl"
    write_records(file, [record(f"r {n % 3}{'?' * n}", 1.0) for n in range(6)] + [record("never 77", 1.0)])
    said = invoke("backend=mock", "backend.answers=3", "problems=pacore_train_8k_stage1", f"problems.path={file}",
                  "repeats=4", f"out={out}", f"store={tmp_path / 'store.sqlite'}")  # fmt: skip
    assert said.code == 0, said.err
    scores: dict[str, list[float]] = {}
    for line in lines_of(out / "results.jsonl"):
        scores.setdefault(line["problem"][0]["content"], []).append(line["grade"]["score"])
    sieve(monkeypatch, "stage2", file, "--run", out, "--to", to)
    kept = [each.conversation[0]["content"] for each in read_records(to)]
    assert sorted(kept) == sorted(question for question, found in scores.items() if 0 < sum(found) < 4)
    assert "never 77?" in scores
    assert "never 77?" not in kept
    assert "synthesis accuracy 0" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        sieve(monkeypatch, "stage2", file, "--run", tmp_path, "--to", to)
    fails(capsys, end, "holds no run of this lab")


def test_a_file_is_replaced_by_its_own_filtering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pool.jsonl"
    write_records(file, [record("a", 1.0, 0.0, 0.0), record("b", 0.0)])
    sieve(monkeypatch, "stage1", file, "--to", file)
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["a"]
