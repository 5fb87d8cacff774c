"""Policies on stored trajectories: what a replay says is what the run itself would have said."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf.errors import OmegaConfBaseException

from backends.replay import Replay
from pacore_lab.commands.sweep import sweep
from pacore_lab.config.stored import parts_of, policies_of
from pacore_lab.errors import ConfigError, StoreError
from pacore_lab.grading.remembering import Remembering
from pacore_lab.types import Model
from tests.outside import ROOT, finished_in, invoke, results_of

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


def replay(out: Path, filled: Path, *words: str) -> dict[tuple[str, int], dict[str, Any]]:
    return ran(out, filled / "store.sqlite", *words, f"backend.run={filled / 'filled'}", backend="replay")


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
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight trajectories of each episode, by real transformers."""
    folder = tmp_path_factory.mktemp("filled")
    ran(folder / "filled", folder / "store.sqlite", "strategy=majority_vote", "strategy.k=8")
    return folder


@pytest.mark.parametrize("policy", VOTES_AND_STOPS)
def test_replay_equals_live(policy: str, filled: Path, tmp_path: Path) -> None:
    """Live: sampled anew into a store of its own, on the same draws. Votes and stop rules must come out the same."""
    live = ran(tmp_path / "live", tmp_path / "live.sqlite", *policy.split())
    replayed = replay(tmp_path / "replayed", filled, *policy.split())
    assert live.keys() == replayed.keys()
    for key, line in live.items():
        assert told(replayed[key]) == told(line)
    assert all(line["tokens"]["sampled"] == 0 for line in replayed.values())
    assert all(line["tokens"]["reused"] == 0 for line in live.values())
    assert len(finished_in(filled / "store.sqlite")) == 4 * 2 * 8


def test_a_sweep_says_what_replays_say(filled: Path, tmp_path: Path) -> None:
    words = [policy.replace("strategy.k=6", "strategy.k=2,6", 1) for policy in VOTES_AND_STOPS]
    found = sweep(filled / "filled", words, store=filled / "store.sqlite")
    methods = {method.name: method for method in found.methods}
    assert len(methods) == len(VOTES_AND_STOPS) + 2
    for number, policy in enumerate(VOTES_AND_STOPS):
        lines = replay(tmp_path / f"{number}", filled, *policy.split())
        name = " ".join(word.removeprefix("strategy=").removeprefix("strategy.") for word in policy.split())
        method = methods[name]
        for (problem, repeat), line in lines.items():
            row = method.problems.index(problem)
            assert method.scores[row, repeat] == line["grade"]["score"]
            assert method.ttc[row, repeat] == line["tokens"]["ttc"]
            assert method.critical_path[row, repeat] == line["tokens"]["critical_path"]


LACKING = [  # with the failures among what each was handed
    ("strategy=pacore strategy/schedule=[8]", 1),
    ("strategy=pacore strategy/schedule=[4] strategy/compaction=llm_summary", 4),  # would go on without its summaries
    ("strategy=majority_vote strategy.k=9", 1),  # would be the vote of the 8 that are there
    ("strategy=genselect strategy.n=4", 1),  # would keep the first
    ("strategy=short_m_at_k strategy.k=9 strategy.m=3", 0),  # the ninth might have been the quickest
]


@pytest.mark.parametrize(("policy", "failed"), LACKING)
def test_what_was_never_sampled_is_said_and_not_graded(policy: str, failed: int, filled: Path, tmp_path: Path) -> None:
    """A policy that needs more than the store has must not be graded as if that had come to nothing."""
    words = [*policy.split(), f"backend.run={filled / 'filled'}", f"store={filled / 'store.sqlite'}"]
    said = invoke("backend=replay", *SET[1:], *PROBLEMS, *words, f"out={tmp_path / 'o'}", "grader.cache=null")
    assert said.code != 0  # nothing of it could be replayed
    assert "never sampled for this store" in said.err
    lines = results_of(tmp_path / "o").values()
    assert {(line["grade"]["score"], line["tokens"]["sampled"]) for line in lines} == {(None, 0)}
    assert {line["tokens"]["failed"] for line in lines} == {failed}
    assert all(line["tokens"]["reused"] <= 8 for line in lines)
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["rows"][-1]["failed"] == 8
    found = sweep(filled / "filled", ["strategy=majority_vote strategy.k=8", policy], store=filled / "store.sqlite")
    assert [method.graded for method in found.methods] == [8, 0]


def test_what_was_never_sampled_is_counted(filled: Path) -> None:
    found = sweep(filled / "filled", ["strategy=majority_vote strategy.k=8,9"], store=filled / "store.sqlite")
    assert [method.graded for method in found.methods] == [8, 0]
    assert found.remarks == ["majority_vote k=9: 8 of 8 episodes needed trajectories never sampled: no grade"]
    assert found.differences == []
    stops = "strategy=adaptive_consistency strategy.most=40 strategy.rule.threshold=0.8"  # some stop within eight
    found = sweep(filled / "filled", [stops], store=filled / "store.sqlite")
    assert 0 < found.methods[0].graded < 8
    assert found.remarks[0].endswith("no grade; the others are not a fair sample")


def test_a_bank_of_a_smaller_pool_is_said_in_one_line(tmp_path: Path) -> None:
    """An error of one episode came out as a group of as many as there were episodes."""
    ran(tmp_path / "filled", tmp_path / "s.sqlite", "strategy=majority_vote", "strategy.k=2", "pool=2")
    with pytest.raises(ConfigError, match="pool=2 is smaller than the 3"):
        sweep(tmp_path / "filled", ["strategy=majority_vote strategy.k=3"], store=tmp_path / "s.sqlite")


def test_policies_are_spelled_as_on_the_command_line(filled: Path) -> None:
    settings = json.loads((filled / "filled" / "settings.json").read_text())
    grader = Remembering(parts_of(settings)[2])
    spelled = ["strategy=pacore strategy/schedule=[4,2] strategy/order=arrival,shuffle", "strategy=single"]
    found = policies_of(settings, spelled, grader)
    assert [name for name, _ in found] == [
        "pacore schedule.widths=[4,2] strategy/order=arrival",
        "pacore schedule.widths=[4,2] strategy/order=shuffle",
        "single",
    ]
    assert [type(strategy.order).__name__ for _, strategy in found[:2]] == ["Arrival", "Shuffle"]  # type: ignore[attr-defined]
    assert found[0][1].grader is grader  # type: ignore[attr-defined]
    assert found[1][1].order.seed == 3  # type: ignore[attr-defined]
    with pytest.raises(OmegaConfBaseException, match="widht"):
        policies_of(settings, ["strategy=pacore strategy.schedule.widht=[4]"], grader)
    with pytest.raises(ConfigError, match="a policy is made of strategy="):
        policies_of(settings, ["seed=1"], grader)
    with pytest.raises(ConfigError, match=r"^strategy\.scorer\.path is not set"):
        policies_of(settings, ["strategy=best_of_n strategy/scorer=process_reward"], grader)
    with pytest.raises(ConfigError, match="no closing quotation"):
        policies_of(settings, ["strategy=single 'foo"], grader)
    with pytest.raises(ConfigError, match="a policy is empty"):
        policies_of(settings, ["strategy=single", ""], grader)


def test_a_store_that_is_none_is_refused(filled: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        sweep(filled / "filled", ["strategy=single"], store=tmp_path / "none.sqlite")
    ran(tmp_path / "mock", tmp_path / "mock.sqlite", "strategy=single", backend="mock")
    with pytest.raises(StoreError, match="holds no trajectory of"):
        sweep(filled / "filled", ["strategy=single"], store=tmp_path / "mock.sqlite")
    with pytest.raises(ConfigError, match="holds no run"):
        sweep(tmp_path / "nothing", ["strategy=single"], store=filled / "store.sqlite")
    with pytest.raises(ConfigError, match="named twice"):
        sweep(filled / "filled", ["strategy=single", "strategy=single"], store=filled / "store.sqlite")


RLVR = ROOT / "experiments" / "tiny_models" / "rlvr-tiny"


async def replayed(filled: Path, **changes: Any) -> Replay:
    model = Model(name="rlvr-tiny", path=str(RLVR), dtype="float32", logprobs=True, top_logprobs=5)
    backend = Replay(model=replace(model, **changes), run=str(filled))
    await backend.start()
    return backend


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"name": "pacore-tiny"}, ["name"]),
        ({"path": str(RLVR.parent / "pacore-tiny")}, ["path"]),
        ({"path": "/nope"}, ["path"]),
        ({"path": None}, ["path"]),
        ({"path": "someone/rlvr-tiny", "revision": "abc"}, ["path", "revision"]),
        ({"context_length": 2048}, ["context_length"]),
        ({"temperature": 0.5, "top_p": 0.9, "max_tokens": 7}, ["max_tokens", "temperature", "top_p"]),
        ({"logprobs": False, "top_logprobs": 0}, ["logprobs", "top_logprobs"]),
        ({"chat_template_kwargs": {"a": 1}}, ["chat_template_kwargs"]),
    ],
)
async def test_another_model_than_the_banks_is_refused(
    changes: dict[str, Any], differing: list[str], filled: Path
) -> None:
    """Its draws were reported as those of a model that never sampled them."""
    with pytest.raises(ConfigError, match="is a run of another model") as said:
        await replayed(filled / "filled", **changes)
    assert sorted(re.findall(r"model\.(\w+) is", str(said.value))) == differing


async def test_one_model_may_be_spelled_in_several_ways(filled: Path, tmp_path: Path) -> None:
    """Another way to the same folder, and the folder moved to where its path says nothing."""
    known = json.loads((filled / "filled" / "versions.json").read_text())["backend"]["fingerprint"]
    shutil.copytree(RLVR, tmp_path / "moved")
    for path in (f"{RLVR.parent}/../tiny_models/rlvr-tiny/", "experiments/tiny_models/rlvr-tiny", tmp_path / "moved"):
        assert (await replayed(filled / "filled", path=str(path))).fingerprint == known
    assert (await replayed(filled / "filled", temperature=1)).fingerprint == known
    (tmp_path / "moved" / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"model\.path"):
        await replayed(filled / "filled", path=str(tmp_path / "moved"))


def test_a_roles_bank_is_that_of_its_model(tmp_path: Path) -> None:
    """A role was given the draws of the run's own model, which hold none of its verdicts."""
    words = ["strategy=genselect", "strategy.n=2", "model@roles.judge=pacore_tiny"]
    live = ran(tmp_path / "filled", tmp_path / "store.sqlite", *words)
    again = replay(tmp_path / "again", tmp_path, *words)
    assert any(line["tokens"]["roles"]["judge"] for line in live.values())
    for key, line in live.items():
        assert (again[key]["answers"], again[key]["notes"]) == (line["answers"], line["notes"])
        assert again[key]["tokens"]["failed"] == 0
    files = [f"out={tmp_path / 'o'}", f"store={tmp_path / 'store.sqlite'}", f"backend.run={tmp_path / 'filled'}"]
    said = invoke("backend=replay", *SET[1:], *PROBLEMS, *words[:2], "model@roles.judge=control_tiny", *files)
    assert said.code == 2
    assert "is a run of another model: model.name is 'control-tiny'" in said.err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "versions", ["[]", '"x"', "{", "{}", '{"backend": {}}', '{"backend": []}', '{"backend": null}']
)
async def test_a_run_folder_that_is_damaged_is_one_line(versions: str, filled: Path, tmp_path: Path) -> None:
    """TypeError, KeyError 'fingerprint'."""
    shutil.copy(filled / "filled" / "settings.json", tmp_path)
    (tmp_path / "versions.json").write_text(versions)
    with pytest.raises(ConfigError, match=f"backend.run={tmp_path} holds no run"):
        await replayed(tmp_path)
