"""What holds over all episodes of a run: its budget, what is shared out among them, what aborts leave in the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.outside import finished_in, invoke, lines_of, results_of

QUORUM = [
    "strategy=pacore",
    "strategy/schedule=quorum",
    "strategy.schedule.of.widths=[8]",
    "strategy.schedule.share=0.5",
]


def arguments(folder: Path, *words: str) -> list[str]:
    return ["backend=mock", "problems.n=10", f"out={folder / 'o'}", f"store={folder / 's.sqlite'}", *words]


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in line.items() if key not in ("seconds", "trajectories")}
    kept["tokens"] = {k: v for k, v in line["tokens"].items() if k not in ("sampled", "reused")}
    return kept


def test_a_spent_budget_ends_the_run_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    """An episode cut off by the budget must be no failure of the strategy, and no episode of the next attempt less."""
    words = ["strategy=pacore_low", "concurrency=4"]
    whole = arguments(tmp_path / "whole", *words)
    assert invoke(*whole).code == 0
    spent = sum(line["tokens"]["ttc"] for line in lines_of(tmp_path / "whole" / "o" / "results.jsonl"))
    said = invoke(*arguments(tmp_path, *words, f"budget={spent // 2}"))
    assert said.code != 0
    assert f"budget={spent // 2} tokens are spent" in said.err
    assert said.err.rstrip().endswith("the same command with a larger budget= resumes")
    done = results_of(tmp_path / "o")
    assert 0 < len(done) < 10
    assert "pacore_low" in said.out  # the table of what is done
    drawn = sum(line["tokens"]["ttc"] for line in done.values())
    assert drawn <= spent // 2 + 4 * 80  # beyond it only what was in flight
    assert {line["error"] for line in done.values()} == {None}
    sampled = len(finished_in(tmp_path / "s.sqlite"))
    assert invoke(*arguments(tmp_path, *words, f"budget={drawn}")).code != 0  # what is done has spent this one
    assert len(finished_in(tmp_path / "s.sqlite")) == sampled
    assert invoke(*arguments(tmp_path, *words, "budget=1000000")).code == 0
    assert len(results_of(tmp_path / "o")) == 10
    assert len(finished_in(tmp_path / "s.sqlite")) == len(finished_in(tmp_path / "whole" / "s.sqlite")) == 50


def test_a_budget_of_nothing_done_is_said(tmp_path: Path) -> None:
    said = invoke(*arguments(tmp_path, "strategy=pacore_high", "budget=1"))
    assert said.code != 0
    assert "0 episodes are done, 10 are not" in said.err


def test_shares_are_the_same_after_an_interruption(tmp_path: Path) -> None:
    """Episodes that are done do not claim again; without their recorded claims the others would get other shares."""
    words = ["strategy=allocated", "strategy.first=4", "strategy.mean=7", "backend.answers=2"]
    assert invoke(*arguments(tmp_path, *words)).code == 0
    file = tmp_path / "o" / "results.jsonl"
    before = results_of(tmp_path / "o")
    assert sum(len(line["trajectories"][0]) for line in before.values()) == 10 * 7
    assert len({len(line["trajectories"][0]) for line in before.values()}) > 1
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[::2]))
    assert invoke(*arguments(tmp_path, *words)).code == 0
    after = results_of(tmp_path / "o")
    assert {k: without_times(v) for k, v in after.items()} == {k: without_times(v) for k, v in before.items()}


def test_aborted_trajectories_are_finished_if_told(tmp_path: Path) -> None:
    words = [*QUORUM, "backend.delay=0.2"]
    assert invoke(*arguments(tmp_path / "biased", *words)).code == 0
    assert invoke(*arguments(tmp_path / "whole", *words, "finish_aborted=true")).code == 0
    stored = {name: finished_in(tmp_path / name / "s.sqlite") for name in ("biased", "whole")}
    assert len(stored["biased"]) < 10 * 9
    assert len(stored["whole"]) == 10 * 9  # 8 of round 1, finished or not, and the last one
    ttc = {
        name: sum(line["tokens"]["ttc"] for line in lines_of(tmp_path / name / "o" / "results.jsonl"))
        for name in stored
    }
    lines = lines_of(tmp_path / "whole" / "o" / "results.jsonl")
    assert all(line["tokens"]["aborted"] == 4 for line in lines)
    assert ttc["whole"] < sum(line["tokens"]["generated"] for line in lines) * 2  # nobody paid for what came after


def test_the_summary_says_what_compaction_kept(tmp_path: Path) -> None:
    assert invoke(*arguments(tmp_path, "strategy/compaction=answer_only")).code == 0
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    (first,) = summary["compaction"]
    assert first["round"] == 1
    assert first["ratio"] < 0.1
    assert (first["kept"], first["majority"], first["episodes"]) == (1.0, 1.0, 10)
