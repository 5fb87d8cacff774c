"""Published benchmarks from a local file to the table, as a user runs them: policy and judge are one stub server."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from pacore_lab.commands import regrade
from pacore_lab.results.disk import read_lines
from tests.outside import Outcome, invoke, serving


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def file(rows: list[dict[str, Any]]) -> str:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "problems.path=rows.jsonl"


def run(server: Any, *words: str) -> Outcome:
    url, name = f"base_url={server.base_url}", "model.name=m"
    judge = [f"grader.judge.{word}" for word in ("model.name=j", f"backend.{url}", "backend.probe=false")]
    judged = any(word in ("grader=hle", "grader=multichallenge", "grader=judged_answers") for word in words)
    fixed = [
        "strategy=single",
        "backend=openai",
        f"backend.{url}",
        "backend.probe=false",
        "model=custom",
        name,
        "out=o",
    ]
    said = invoke(*fixed, *words, *(judge if judged else []))
    assert said.code == 0, said.err
    return said


def lines() -> dict[str, dict[str, Any]]:
    return {line["request_id"]: line for line in read_lines(Path("o/results.jsonl"))}


def test_livecodebench_and_its_two_graders(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A correct program that iterates stdin fails under the official runner: a regrading says so, without sampling."""
    tests = [{"input": f"{n}\n", "output": f"{2 * n}\n", "testtype": "stdin"} for n in (3, 40)]
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests[1:])))).decode()
    row = {
        "question_content": "Double it.", "contest_date": "2024-09-01T00:00:00", "starter_code": "",
        "public_test_cases": json.dumps(tests[:1]), "private_test_cases": packed, "metadata": "{}",
    }  # fmt: skip
    programs = {
        "text": "print(2 * int(input()))",
        "lines": "import sys\nfor line in sys.stdin:\n    print(2 * int(line))",
        "wrong": "print(6)",
    }
    rows = [{**row, "question_id": name, "question_content": name, "difficulty": name[0]} for name in programs]

    def reply(payload: dict[str, Any], n: int) -> str:
        asked = payload["messages"][-1]["content"]
        program = next(code for name, code in programs.items() if f"### Question:\n{name}\n" in asked)
        return f"<think>Hm.\n```python\nprint(0)\n```\n</think>Here:\n```python\n{program}\n```\n"

    with serving(reply) as server:
        said = run(server, "problems=livecodebench", file(rows), "grader=lcb_official", "grader.workers=1")
        asked = len(server.requests)
    found = lines()
    assert {name: line["grade"]["score"] for name, line in found.items()} == {"text": 1.0, "lines": 0.0, "wrong": 0.0}
    assert found["wrong"]["grade"]["details"]["passed"] == 1  # the public test; the packed one is the second
    assert "single by group: l 0.0" in said.out
    assert found["text"]["ground_truth"]["answer"] is None  # of megabytes of tests a line keeps a digest
    monkeypatch.setattr("sys.argv", ["regrade", "o", "grader=lcb_subprocess", "grader.workers=1"])
    regrade.main()
    assert "lines repeat 0: 0.0 -> 1.0" in capsys.readouterr().out
    assert len(server.requests) == asked


def test_multichallenge_is_the_mean_over_axes() -> None:
    row = {"conversation": [{"role": "user", "content": "Be brief."}], "target_question": "Brief?"}
    wanted = [("a", "YES", "INFERENCE"), ("b", "YES", "INFERENCE"), ("c", "NO", "EDITING")]
    rows = [{**row, "question_id": name, "pass_criteria": criterion, "axis": axis} for name, criterion, axis in wanted]
    rows[1]["target_question"] = "Unclear?"

    def reply(payload: dict[str, Any], n: int) -> str:
        asked = payload["messages"][-1]["content"]
        if "<CRITERIA>" not in asked:
            return "<think>NO</think>Yes."
        return "I cannot say." if "Unclear?" in asked else "It is.\nYES"

    with serving(reply) as server:
        said = run(server, "problems=multichallenge", file(rows), "grader=multichallenge")
    assert {name: line["grade"]["score"] for name, line in lines().items()} == {"a": 1.0, "b": None, "c": 0.0}
    assert "1 of 3 episodes ungraded" in said.out
    assert "unweighted mean of groups 50.0" in said.out
    assert "judge: " in said.out
    asked = [payload["messages"][-1]["content"] for payload in server.requests if payload["model"] == "j"]
    assert len(asked) == 2  # a and c are the same question
    assert all("<think>" not in text for text in asked)


def test_hle_has_a_calibration_error() -> None:
    row = {"image": "", "answer": "4", "answer_type": "exactMatch", "category": "Math", "raw_subject": "Sums"}
    rows = [{**row, "id": name, "question": f"{name}?"} for name in ("x", "y")] + [
        {**row, "id": "z", "question": "?", "image": "i"}
    ]

    def reply(payload: dict[str, Any], n: int) -> str:
        if payload["model"] == "m":
            return "Explanation: none\nAnswer: 4\nConfidence: 90%"
        right = "yes" if "x?" in payload["messages"][-1]["content"] else "no"
        return f"extracted_final_answer: 4\nreasoning: so\ncorrect: {right}\nconfidence: 90"

    with serving(reply) as server:
        said = run(server, "problems=hle_text", file(rows), "grader=hle")
    assert {name: line["grade"]["score"] for name, line in lines().items()} == {"x": 1.0, "y": 0.0}
    assert "RMS calibration error 40.0 %" in said.out  # 90 % stated, half right
    page = Path("o/report.html").read_text()
    assert "RMS calibration error 40.0 %" in page
    assert "rows.jsonl (sha256" in page


def test_imo_answerbench_asks_a_judge_where_rules_end() -> None:
    rows = [
        {"Problem ID": name, "Problem": name, "Short Answer": truth, "Category": "Algebra"}
        for name, truth in (("number", "7"), ("words", "all even n"))
    ]

    def reply(payload: dict[str, Any], n: int) -> str:
        asked = payload["messages"][-1]["content"]
        if payload["model"] == "j":
            return "same: yes"
        return r"\boxed{8}" if "number" in asked else r"\boxed{n=2k}"

    with serving(reply) as server:
        run(server, "problems=imo_answerbench", file(rows), "grader=judged_answers", "grader.rules.cache=null")
    found = lines()
    assert {name: line["grade"]["score"] for name, line in found.items()} == {"number": 0.0, "words": 1.0}
    assert found["words"]["grade"]["details"]["decided_by"] == "judge"
    assert found["words"]["judge_tokens"] > 0
    assert found["words"]["tokens"]["ttc"] == found["number"]["tokens"]["ttc"]  # a judge is no test-time compute
