"""Models of their own for those whom a strategy asks by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pacore_lab.errors import ConfigError, Unsupported
from pacore_lab.interfaces import Capabilities
from pacore_lab.running.needs import refuse_role, roles_of
from pacore_lab.types import Model
from strategies.adaptive import Quorum
from strategies.compaction import Conclusion, LLMSummary
from strategies.orders import Published
from strategies.pacore import PaCoRe
from strategies.prompts import Template
from strategies.schedules import Fixed
from tests.outside import invoke, results_of


def run(folder: Path, *words: str) -> dict[str, Any]:
    files = [f"out={folder / 'o'}", f"store={folder / 's.sqlite'}"]
    said = invoke("backend=mock", "problems.n=2", *words, *files)
    assert said.code == 0, said.err
    return next(iter(results_of(folder / "o").values()))


def rows(folder: Path) -> dict[str, str]:
    """Fingerprint of each stored trajectory."""
    from tests.outside import finished_in

    return {row["id"]: row["fingerprint"] for row in finished_in(folder / "s.sqlite")}


def test_each_round_asks_its_role(tmp_path: Path) -> None:
    line = run(
        tmp_path,
        "model@roles.explore=rlvr_tiny",
        "backend@roles.synthesize=mock",
        "roles.synthesize.backend.characters=40",
    )
    made = rows(tmp_path)
    by_round = [{made[fact["id"]] for fact in done} for done in line["trajectories"]]
    assert by_round == [{"mock:rlvr-tiny:200:10"}, {"mock:pacore-tiny:40:10"}]
    assert [{fact["role"] for fact in done} for done in line["trajectories"]] == [{"explore"}, {"synthesize"}]
    spent = [sum(fact["tokens"] for fact in done) for done in line["trajectories"]]
    assert line["tokens"]["roles"] == {"explore": spent[0], "synthesize": spent[1]}
    settings = json.loads((tmp_path / "o" / "settings.json").read_text())
    assert settings["roles"]["explore"]["model"]["name"] == "rlvr-tiny"
    versions = json.loads((tmp_path / "o" / "versions.json").read_text())
    assert versions["backend"]["roles"]["explore"]["fingerprint"] == "mock:rlvr-tiny:200:10"


def test_a_role_of_the_middle_round(tmp_path: Path) -> None:
    words = ["strategy=pacore", "strategy/schedule=[3,2]", "strategy.roles=[a,b,c]", "model@roles.b=rlvr_tiny"]
    line = run(tmp_path, *words)
    made = rows(tmp_path)
    models = [{made[fact["id"]].split(":")[1] for fact in done} for done in line["trajectories"]]
    assert models == [{"pacore-tiny"}, {"rlvr-tiny"}, {"pacore-tiny"}]


def test_what_stands_in_no_round_is_in_the_line_too(tmp_path: Path) -> None:
    """Tokens of summaries and verdicts that no line accounts for."""
    line = run(tmp_path, "strategy/compaction=llm_summary", "model@roles.summarise=rlvr_tiny")
    assert [fact["role"] for fact in line["others"]] == ["summarise"] * 4
    assert all(fact["content"] for fact in line["others"])
    everything = [fact for done in (*line["trajectories"], line["others"]) for fact in done]
    assert line["tokens"]["ttc"] == sum(fact["tokens"] for fact in everything)
    assert line["tokens"]["roles"]["summarise"] == sum(fact["tokens"] for fact in line["others"])


def test_other_weights_for_a_role_are_another_run(tmp_path: Path) -> None:
    run(tmp_path, "model@roles.explore=rlvr_tiny")
    files = [f"out={tmp_path / 'o'}", f"store={tmp_path / 's.sqlite'}"]
    said = invoke("backend=mock", "problems.n=2", "model@roles.explore=control_tiny", *files)
    assert said.code != 0
    assert "other settings" in said.err
    said = invoke(
        "backend=mock",
        "problems.n=2",
        "model@roles.explore=rlvr_tiny",
        "backend@roles.explore=mock",
        "roles.explore.backend.characters=7",
        *files,
    )
    assert said.code != 0
    assert "another model or engine" in said.err


def test_a_role_is_held_to_what_its_askers_need() -> None:
    strategy = PaCoRe(
        schedule=Quorum(of=Fixed(widths=[4])),
        prompt=Template(),
        order=Published(),
        compaction=LLMSummary(of=Conclusion(), max_tokens=50, role="summarise"),
        roles=["explore", "synthesize"],
    )
    assert roles_of(strategy).keys() == {"explore", "synthesize", "summarise"}
    assert "partial" in roles_of(strategy)["explore"]
    assert "partial" not in roles_of(strategy)["summarise"]
    model = Model(name="m")
    refuse_role(strategy, "summarise", model, Capabilities())
    with pytest.raises(Unsupported, match=r"aborts trajectories.*name another backend@roles\.explore="):
        refuse_role(strategy, "explore", model, Capabilities())
    with pytest.raises(Unsupported, match=r"roles\.summarise\.model\.logprobs=true, but"):
        refuse_role(strategy, "summarise", Model(name="m", logprobs=True), Capabilities())
    with pytest.raises(ConfigError, match="its roles are explore, summarise, synthesize"):
        refuse_role(strategy, "judge", model, Capabilities())


@dataclass(frozen=True)
class Asking:
    role: str | None = None
    roles: Any = None


def test_a_part_may_leave_its_roles_open() -> None:
    """A role of None was taken for a name, and roles of None for a list."""
    assert roles_of(Asking()) == {}
    assert roles_of(Asking("judge", ["a", ["b", "c"]])).keys() == {"judge", "a", "b", "c"}
    with pytest.raises(ConfigError, match="it asks none"):
        refuse_role(Asking(), "judge", Model(name="m"), Capabilities())


@pytest.mark.parametrize("strategy", ["best_of_n strategy/scorer=judge", "genselect", "universal_self_consistency"])
def test_a_judge_that_never_answers_leaves_no_grade_and_is_counted(strategy: str, tmp_path: Path) -> None:
    """Every episode was a 0, or its first candidate, and nothing but results.jsonl said why."""
    words = [f"strategy={strategy}".split(), ["strategy.n=3", "problems.n=2", "model@roles.judge=rlvr_tiny"]]
    judge = ["backend@roles.judge=hf", "roles.judge.backend.threads=1", "roles.judge.model.context_length=64"]
    files = [f"out={tmp_path / 'o'}", f"store={tmp_path / 's.sqlite'}"]
    said = invoke("backend=mock", *(word for each in words for word in each), *judge, *files)
    assert said.code != 0
    assert "all 2 episodes failed" in said.err
    assert {line["grade"]["score"] for line in results_of(tmp_path / "o").values()} == {None}
    reasons = json.loads((tmp_path / "o" / "summary.json").read_text())["reasons"]
    assert {"side call", "note", "episode"} == {reason["kind"] for reason in reasons}
    assert any("the context of rlvr-tiny holds 64" in reason["reason"] for reason in reasons)
