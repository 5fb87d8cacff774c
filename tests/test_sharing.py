"""One seed and one store: what several runs have in common is sampled once, counted at the server."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.outside import Outcome, begin, finished_in, invoke, results_of, serving, write_jsonl
from tests.servers import Payload, RecordingServer, default_text


def reply(payload: Payload, n: int) -> str:
    return default_text(payload)


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "p.jsonl", [{"id": f"p{i}", "question": f"{i} + {i}?"} for i in range(3)])


def arguments(server: RecordingServer, folder: Path, out: str, *args: str) -> list[str]:
    backend = ["backend=openai", f"backend.base_url={server.base_url}", "backend.probe=false", "model.name=m"]
    files = [f"problems.path={folder / 'p.jsonl'}", f"out={folder / out}", f"store={folder / 's.sqlite'}"]
    return [*backend, "problems=jsonl", *files, *args]


def run(server: RecordingServer, folder: Path, out: str, *args: str) -> tuple[Outcome, dict[str, Any]]:
    said = invoke(*arguments(server, folder, out, *args))
    assert said.code == 0, said.err
    return said, json.loads((folder / out / "summary.json").read_text())


def first_rounds(server: RecordingServer) -> Counter[str]:
    texts = [payload["messages"][-1]["content"] for payload in server.requests]
    return Counter(text for text in texts if re.fullmatch(r"\d \+ \d\?", text))


def test_low_medium_high_and_majority_share_round_one(tmp_path: Path, problems: Path) -> None:
    """Each K_1 is a prefix of the 32 of high; the summary and the table say how much was reused."""
    runs = {
        "low": (["strategy=pacore_low"], 3 * 5, 0),
        "medium": (["strategy=pacore_medium"], 3 * 13, 3 * 4),
        "vote": (["strategy=majority_vote", "strategy.k=16"], 0, 3 * 16),
        "high": (["strategy=pacore_high"], 3 * (16 + 4 + 1), 3 * 16),
        "single": (["strategy=single"], 0, 3),
    }
    with serving(reply) as server:
        for name, (args, sampled, reused) in runs.items():
            said, summary = run(server, tmp_path, name, *args)
            assert summary["trajectories"]["sampled"] == sampled, name
            assert summary["trajectories"]["reused"] == reused, name
            assert f"{sampled} trajectories sampled, {reused} reused" in said.out
        seeds = Counter(payload["seed"] for payload in server.requests)
        assert max(seeds.values()) == 1
        assert first_rounds(server) == dict.fromkeys(["0 + 0?", "1 + 1?", "2 + 2?"], 32)
        asked = len(server.requests)
        run(server, tmp_path, "another seed", "strategy=single", "seed=1")
        assert len(server.requests) == asked + 3, "another seed is another draw"
    low, high = results_of(tmp_path / "low"), results_of(tmp_path / "high")
    for key, row in low.items():
        first = {fact["id"] for fact in row["trajectories"][0]}
        assert first == {fact["id"] for fact in high[key]["trajectories"][0] if fact["index"] < 4}
        assert row["tokens"]["ttc"] == sum(fact["tokens"] for done in row["trajectories"] for fact in done)


def test_a_pool_is_sampled_once_and_charged_each_time(tmp_path: Path, problems: Path) -> None:
    """Section 3.2: every repeat draws its K_1 from the problem's pool; draws cost as if they had been generated."""
    with serving(reply) as server:
        _, summary = run(
            server, tmp_path, "pool", "strategy=pacore", "strategy.schedule.widths=[3]", "repeats=8", "pool=6"
        )
        drawn = results_of(tmp_path / "pool")
        counts = first_rounds(server)
        assert set(counts.values()) == {6}, "8 repeats draw 24 times from 6"
        assert len(server.requests) == 3 * 6 + 3 * 8
    for name in ("p0", "p1", "p2"):
        sets = [frozenset(f["id"] for f in drawn[name, repeat]["trajectories"][0]) for repeat in range(8)]
        assert all(len(one) == 3 for one in sets)
        assert len(set(sets)) > 2
    for row in drawn.values():
        assert row["tokens"]["ttc"] == sum(fact["tokens"] for done in row["trajectories"] for fact in done)
    assert summary["trajectories"]["sampled"] == 3 * 6 + 3 * 8
    assert summary["trajectories"]["reused"] == 3 * (8 * 3 - 6)


def test_two_processes_on_one_store(tmp_path: Path, problems: Path) -> None:
    """At the same time, under one seed: both finish, with the same answers, and the store holds each draw once."""
    with serving(reply, delay=0.05) as server:
        args = ["strategy=pacore_low", "repeats=4", "concurrency=4"]
        pair = [begin(*arguments(server, tmp_path, out, *args), cwd=tmp_path) for out in ("a", "b")]
        for process in pair:
            process.join(60)
            assert process.exitcode == 0, (tmp_path / "log").read_text()
    answers = [
        {key: (row["final_response"], row["messages"]) for key, row in results_of(tmp_path / out).items()}
        for out in ("a", "b")
    ]
    assert answers[0] == answers[1]
    stored = [row["id"] for row in finished_in(tmp_path / "s.sqlite")]
    assert len(stored) == len(set(stored)) == 3 * 4 * 5


def test_one_and_one_point_zero_are_one_temperature(tmp_path: Path, problems: Path) -> None:
    """`model.temperature=1` beside the default 1.0 shared nothing and sent other bytes."""
    with serving(reply) as server:
        run(server, tmp_path, "default", "strategy=single")
        run(server, tmp_path, "typed", "strategy=single", "model.temperature=1", "model.top_p=1")
        assert len(server.requests) == 3
