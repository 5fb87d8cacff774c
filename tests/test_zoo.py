"""Every option of conf/strategy and of its groups, from the command line on real transformers with a tiny model.

The options are read from the folder, so a new one is run without a word here; tables make the wide ones small.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pacore_lab.interfaces import needs_of
from strategies.prompts import PUBLISHED
from tests.outside import ROOT, finished_in, invoke, lines_of, results_of
from tests.test_adaptive_study import built
from tests.test_scorers import classifier  # noqa: F401 - a fixture

CONF = ROOT / "conf" / "strategy"
STRATEGIES = sorted(file.stem for file in CONF.glob("*.yaml"))
PARTS = sorted(f"{file.parent.name}={file.stem}" for file in CONF.glob("*/*.yaml"))
COMMON = ["backend=hf", "backend.threads=1", "grader.cache=null", "model.logprobs=true", "model.top_logprobs=5"]
PROBLEMS = ["problems=search", "problems.n=2", "problems.boxes=3", "repeats=2", "model.max_tokens=128"]

SMALL = {
    "adaptive_consistency": "strategy.most=6",
    "agglm": "strategy/schedule=[4]",
    "allocated": "strategy.first=3 strategy.mean=4",
    "best_of_n": "strategy.n=4",
    "deepconf_offline": "strategy.n=6 strategy.window=8 strategy.tail=8 strategy.keep=0.5",
    "deepconf_online": "strategy.warmup=4 strategy.budget=16 strategy.batch=6 strategy.window=8 strategy.every=4 "
    "strategy.keep=0.5 strategy.consensus=1",
    "early_stopping_sc": "strategy.most=6 strategy.rule.window=2",
    "genselect": "strategy.n=4 strategy.group=2",
    "majority_vote": "strategy.k=6",
    "pacore_high": "strategy/schedule=[4,2]",
    "pacore_medium": "strategy/schedule=[6]",
    "parallel_probe": "strategy.branches=6 strategy.every=8 strategy.warmup=0 strategy.patience=1 strategy.stable=3",
    "pdr": "strategy/schedule=[4,2] strategy.compaction.max_tokens=64",
    "rsa": "strategy.schedule.width=4 strategy.schedule.loops=3 strategy.views.k=2",
    "rsa_markovian": "strategy.schedule.width=4 strategy.schedule.loops=3 strategy.views.k=2 strategy.compaction.n=16",
    "self_moa": "strategy/schedule=[4]",
    "universal_self_consistency": "strategy.n=4",
}
BASE = {
    "rule": "strategy=adaptive_consistency strategy.most=6",
    "scorer": "strategy=best_of_n strategy.n=4",
    "weight": "strategy=majority_vote strategy.k=6",
}
PACORE = "strategy=pacore strategy/schedule=[4,2]"
SMALL_PARTS = {
    "compaction=global_summary": "strategy.compaction.max_tokens=64",
    "compaction=last_tokens": "strategy.compaction.n=16",
    "compaction=llm_summary": "strategy.compaction.max_tokens=64",
    "compaction=random_k": "strategy.compaction.k=2",
    "compaction=top_k": "strategy.compaction.k=2",
    "rule=unanimous": "strategy.rule.window=2",
    "schedule=agreement_stop": "strategy.schedule.of.widths=[6,2] strategy.schedule.rule.threshold=0.8",
    "schedule=by_disagreement": "strategy.schedule.first=4 strategy.schedule.most=3",
    "schedule=high": "strategy.schedule.widths=[4,2]",
    "schedule=medium": "strategy.schedule.widths=[6]",
    "schedule=population": "strategy.schedule.width=3 strategy.schedule.loops=2",
    "schedule=quorum": "strategy.schedule.of.widths=[4,2]",
    "schedule=skip_agreed": "strategy.schedule.of.widths=[4,2]",
    "schedule=token_budget": "strategy.schedule.of.widths=[4,2] strategy.schedule.tokens=200",
    "scorer=judge": "strategy.scorer.max_tokens=64",
    "views=random_subset": "strategy.views.k=2",
}
ABORTING = {"deepconf_online", "parallel_probe", "short_m_at_k", "schedule=agreement_stop", "schedule=quorum"}
"""What is known to abort trajectories of these problems."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for all that aborts nothing: its first rounds are sampled once."""
    return tmp_path_factory.mktemp("zoo") / "store.sqlite"


def run(out: Path, store: Path, words: str) -> list[dict[str, Any]]:
    said = invoke(*COMMON, *PROBLEMS, *words.split(), f"out={out}", f"store={store}")
    assert said.code == 0, said.err
    lines = results_of(out)
    assert len(lines) == 4
    return list(lines.values())


def facts_of(line: dict[str, Any]) -> list[dict[str, Any]]:
    """Every trajectory that the episode looked at."""
    return [fact for done in (*line["trajectories"], line["others"]) for fact in done]


def check(line: dict[str, Any]) -> None:
    """An answer or the reason why there is none, and every token in its place."""
    assert line["error"] is None
    assert bool(line["answers"]) != bool(line["reason"])
    tokens, facts = line["tokens"], facts_of(line)
    assert len({fact["id"] for fact in facts}) == len(facts) == tokens["sampled"] + tokens["reused"]
    assert tokens["failed"] == 0
    assert tokens["generated"] == sum(fact["tokens"] for fact in facts)
    assert tokens["ttc"] == tokens["generated"] + tokens["discarded"]
    assert bool(tokens["discarded"]) <= bool(tokens["aborted"])
    assert max(fact["tokens"] for fact in facts) <= tokens["critical_path"] <= tokens["ttc"]
    named: Counter[str] = Counter()
    for fact in facts:
        if fact["role"] is not None:
            named[fact["role"]] += fact["tokens"]
    assert tokens["roles"].keys() == named.keys()
    over = {role: spent - named[role] for role, spent in tokens["roles"].items()}
    assert all(spent >= 0 for spent in over.values())
    assert sum(over.values()) == (tokens["discarded"] if named else 0)


def kept(line: dict[str, Any]) -> dict[str, Any]:
    """A line without what a resumed run changes: the clock, and what was reused or cached."""
    told = {**line, "seconds": None}
    told["tokens"] = {k: v for k, v in line["tokens"].items() if k not in ("sampled", "reused", "cached")}
    told["trajectories"] = [[{**fact, "reused": None} for fact in done] for done in line["trajectories"]]
    told["others"] = [{**fact, "reused": None} for fact in line["others"]]
    return told


def aborted(lines: list[dict[str, Any]]) -> int:
    assert all(line["tokens"]["sampled"] for line in lines)  # live: none of them is a replay
    assert sum(line["tokens"]["discarded"] for line in lines) >= 1
    return sum(line["tokens"]["aborted"] for line in lines)


def may_abort(words: str) -> bool:
    """As the strategy says itself."""
    return "partial" in needs_of(built(words))


def test_the_tables_name_options() -> None:
    """A renamed option would run with its defaults, of hundreds of trajectories."""
    assert SMALL.keys() <= set(STRATEGIES)
    assert SMALL_PARTS.keys() <= set(PARTS)
    assert set(STRATEGIES) | set(PARTS) >= ABORTING
    assert {part.partition("=")[0] for part in PARTS} >= BASE.keys()


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_runs_and_resumes(name: str, shared: Path, tmp_path: Path) -> None:
    """Its tokens add up; an episode that a killed run did not write comes out the same from the store."""
    words = f"strategy={name} {SMALL.get(name, '')}"
    aborts = may_abort(words)
    out, store = tmp_path / "o", tmp_path / "own.sqlite" if aborts else shared
    lines = run(out, store, words)
    for line in lines:
        check(line)
    stored = len(finished_in(store))
    if name in ABORTING:
        assert aborted(lines) >= 1
    if aborts:
        assert run(out, store, words) == lines
    else:
        assert not any(line["tokens"]["aborted"] for line in lines)
        results = out / "results.jsonl"
        lost = lines_of(results)[-1]
        results.write_text("".join(json.dumps(line) + "\n" for line in lines_of(results)[:-1]), encoding="utf-8")
        *before, again = run(out, store, words)
        assert before == lines[:-1]
        assert again["tokens"]["sampled"] == 0
        assert kept(again) == kept(lost)
    assert len(finished_in(store)) == stored


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs(part: str, shared: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    group = part.partition("=")[0]
    words = f"{BASE.get(group, PACORE.split()[0] if group == 'schedule' else PACORE)} strategy/{part}"
    words += f" {SMALL_PARTS.get(part, '')}"
    if part == "scorer=process_reward":
        words += f" strategy.scorer.path={request.getfixturevalue('classifier')}"
    if part == "prompt=file":
        (tmp_path / "prompt.txt").write_text(PUBLISHED, encoding="utf-8")
        words += f" strategy.prompt.path={tmp_path / 'prompt.txt'}"
    aborts = may_abort(words)
    lines = run(tmp_path / "o", tmp_path / "own.sqlite" if aborts else shared, words)
    for line in lines:
        check(line)
    if part in ABORTING:
        assert aborted(lines) >= 1
    if not aborts:
        assert not any(line["tokens"]["aborted"] for line in lines)
