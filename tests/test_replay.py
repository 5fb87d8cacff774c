"""Policies on stored trajectories: what a replay says is what the run itself would have said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf.errors import OmegaConfBaseException

from pacore_lab import config
from pacore_lab.bank import Remembering
from pacore_lab.errors import ConfigError, StoreError
from pacore_lab.sweep import sweep
from tests.outside import finished_in, invoke, results_of

SET = ["backend.threads=1", "model=rlvr_tiny", "model.logprobs=true", "model.top_logprobs=5", "seed=3"]
PROBLEMS = ["problems=search", "problems.n=4", "problems.boxes=3", "repeats=2"]

VOTES_AND_STOPS = [
    "strategy=majority_vote strategy.k=6",
    "strategy=majority_vote strategy.k=6 strategy/weight=likelihood",
    "strategy=adaptive_consistency strategy.most=8 strategy.rule.threshold=0.8",
    "strategy=adaptive_consistency strategy.most=8 strategy/rule=dirichlet strategy.batch=2",
    "strategy=early_stopping_sc strategy.most=8 strategy.rule.window=2",
    "strategy=best_of_n strategy.n=6",
    "strategy=deepconf_offline strategy.n=6 strategy.window=8 strategy.tail=8 strategy.keep=0.5",
]
KEPT = (
    "answers",
    "grade",
    "final_response",
    "round_responses",
    "trajectories",
    "messages",
    "tokens",
    "reason",
    "notes",
)


def ran(out: Path, store: Path, *words: str, backend: str = "hf") -> dict[tuple[str, int], dict[str, Any]]:
    settings = SET if backend == "hf" else SET[1:]
    files = [f"out={out}", f"store={store}", "grader.cache=null"]
    said = invoke(f"backend={backend}", *settings, *PROBLEMS, *words, *files)
    assert said.code == 0, said.err
    return results_of(out)


def replay(out: Path, bank: Path, *words: str) -> dict[tuple[str, int], dict[str, Any]]:
    return ran(out, bank / "bank.sqlite", *words, f"backend.run={bank / 'bank'}", backend="replay")


def told(line: dict[str, Any]) -> dict[str, Any]:
    """A line without what a replay cannot share: that its trajectories were reused."""
    kept = {key: line[key] for key in KEPT}
    kept["tokens"] = {k: v for k, v in line["tokens"].items() if k not in ("sampled", "reused", "cached")}
    kept["trajectories"] = [[_fact(fact) for fact in done] for done in line["trajectories"]]
    return kept


def _fact(fact: dict[str, Any]) -> dict[str, Any]:
    """The last bits of a log-probability depend on what else was in the batch."""
    return {**fact, "reused": None, "mean_logprob": round(fact["mean_logprob"], 5)}


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight trajectories of each episode, by real transformers."""
    folder = tmp_path_factory.mktemp("bank")
    ran(folder / "bank", folder / "bank.sqlite", "strategy=majority_vote", "strategy.k=8")
    return folder


@pytest.mark.parametrize("policy", VOTES_AND_STOPS)
def test_replay_equals_live(policy: str, bank: Path, tmp_path: Path) -> None:
    """Live: sampled anew into a store of its own, on the same draws. Votes and stop rules must come out the same."""
    live = ran(tmp_path / "live", tmp_path / "live.sqlite", *policy.split())
    replayed = replay(tmp_path / "replayed", bank, *policy.split())
    assert live.keys() == replayed.keys()
    for key, line in live.items():
        assert told(replayed[key]) == told(line)
    assert all(line["tokens"]["sampled"] == 0 for line in replayed.values())
    assert all(line["tokens"]["reused"] == 0 for line in live.values())
    assert len(finished_in(bank / "bank.sqlite")) == 4 * 2 * 8


def test_a_sweep_says_what_replays_say(bank: Path, tmp_path: Path) -> None:
    words = [policy.replace("strategy.k=6", "strategy.k=2,6", 1) for policy in VOTES_AND_STOPS]
    found = sweep(bank / "bank", words, store=bank / "bank.sqlite")
    methods = {method.name: method for method in found.methods}
    assert len(methods) == len(VOTES_AND_STOPS) + 2
    for number, policy in enumerate(VOTES_AND_STOPS):
        lines = replay(tmp_path / f"{number}", bank, *policy.split())
        name = " ".join(word.removeprefix("strategy=").removeprefix("strategy.") for word in policy.split())
        method = methods[name]
        for (problem, repeat), line in lines.items():
            row = method.problems.index(problem)
            assert method.scores[row, repeat] == line["grade"]["score"]
            assert method.ttc[row, repeat] == line["tokens"]["ttc"]
            assert method.critical_path[row, repeat] == line["tokens"]["critical_path"]


def test_what_was_never_sampled_is_said_and_counted(bank: Path, tmp_path: Path) -> None:
    """A policy that needs another prompt must not be graded as if it had failed to answer."""
    store = f"store={bank / 'bank.sqlite'}"
    run = f"backend.run={bank / 'bank'}"
    words = ["strategy=pacore", "strategy/schedule=[8]", run, store]
    files = [f"out={tmp_path / 'o'}", "grader.cache=null"]
    said = invoke("backend=replay", *SET[1:], *PROBLEMS, *words, *files)
    assert said.code != 0  # nothing of it could be replayed
    assert "never sampled in this bank" in said.err
    lines = results_of(tmp_path / "o")
    assert {line["grade"]["score"] for line in lines.values()} == {None}
    assert {line["tokens"]["failed"] for line in lines.values()} == {1}
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["rows"][-1]["failed"] == 8
    found = sweep(bank / "bank", ["strategy=majority_vote strategy.k=8,9"], store=bank / "bank.sqlite")
    assert [method.graded for method in found.methods] == [8, 0]
    assert found.remarks == ["majority_vote k=9: 8 of 8 episodes needed what was never sampled: no grade"]
    assert found.differences == []


def test_policies_are_spelled_as_on_the_command_line(bank: Path) -> None:
    settings = json.loads((bank / "bank" / "settings.json").read_text())
    grader = Remembering(config.bank(settings)[2])
    spelled = ["strategy=pacore strategy/schedule=[4,2] strategy/order=arrival,shuffle", "strategy=single"]
    found = config.policies(settings, spelled, grader)
    assert [name for name, _ in found] == [
        "pacore schedule.widths=[4,2] strategy/order=arrival",
        "pacore schedule.widths=[4,2] strategy/order=shuffle",
        "single",
    ]
    assert [type(strategy.order).__name__ for _, strategy in found[:2]] == ["Arrival", "Shuffle"]  # type: ignore[attr-defined]
    assert found[0][1].grader is grader  # type: ignore[attr-defined]
    assert found[1][1].order.seed == 3  # type: ignore[attr-defined]
    with pytest.raises(OmegaConfBaseException, match="widht"):
        config.policies(settings, ["strategy=pacore strategy.schedule.widht=[4]"], grader)
    with pytest.raises(ConfigError, match="a policy is made of strategy="):
        config.policies(settings, ["seed=1"], grader)
    with pytest.raises(ConfigError, match=r"strategy\.scorer\.path is not set"):
        config.policies(settings, ["strategy=best_of_n strategy/scorer=process_reward"], grader)


def test_a_bank_that_is_none_is_refused(bank: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        sweep(bank / "bank", ["strategy=single"], store=tmp_path / "none.sqlite")
    ran(tmp_path / "mock", tmp_path / "mock.sqlite", "strategy=single", backend="mock")
    with pytest.raises(StoreError, match="holds no trajectory of"):
        sweep(bank / "bank", ["strategy=single"], store=tmp_path / "mock.sqlite")
    with pytest.raises(ConfigError, match="holds no run"):
        sweep(tmp_path / "nothing", ["strategy=single"], store=bank / "bank.sqlite")
    with pytest.raises(ConfigError, match="named twice"):
        sweep(bank / "bank", ["strategy=single", "strategy=single"], store=bank / "bank.sqlite")
