"""Mixture-of-Agents, and PaCoRe with other prompts: AggLM, Self-MoA, sequential revision."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from pacore_lab.config.build import build
from pacore_lab.errors import RequestError
from pacore_lab.interfaces import PromptBuilder, Request, Strategy
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.types import Message, Problem
from strategies.adaptive import Quorum
from strategies.aggregation_prompts import SystemReferences, agglm, moa, revise
from strategies.compaction import Conclusion
from strategies.orders import Drawn
from strategies.pacore import PaCoRe
from strategies.schedules import Fixed
from strategies.views import RandomSubset
from tests.doubles import Scripted, dispatcher, episode, user

PROBLEM = Problem(id="p", messages=user("2 + 2?"), answer="4")
CONF = Path(__file__).resolve().parent.parent / "conf"
MESSAGES = [Message(text="{{ 7 * 7 }} a", sources=("x",)), Message(text="b", sources=("y",))]


def agents(layers: int = 3) -> PaCoRe:
    return PaCoRe(
        schedule=Fixed(widths=[2] * (layers - 1)),
        prompt=moa(),
        order=Drawn(),
        compaction=Conclusion(),
        roles=[*[["a", "b"]] * (layers - 1), "aggregate"],
    )


def system(request: Request) -> str:
    return str(request.prompt[0]["content"]) if request.prompt[0]["role"] == "system" else ""


async def test_layers_of_several_models_and_one_aggregator(tmp_path: Path) -> None:
    """By hand: 2 proposers, 3 layers: 2 + 2 + 1 requests; b answers from its own model, the others from the run's."""
    ours = Scripted(lambda request, n: f"<think>x</think>ours {n}")
    other = Scripted(lambda request, n: f"other {n}")
    async with dispatcher(ours, tmp_path / "ours") as run, dispatcher(other, tmp_path / "other") as own:
        sampler = EpisodeSampler(run, seed=0, problem="p", repeat=0, roles={"b": own})
        solution = await agents().solve(PROBLEM, sampler)
    assert [system(request) for request in ours.requests[:1] + other.requests[:1]] == ["", ""]
    listed = [[line for line in system(r).splitlines() if line[:2] in ("1.", "2.")] for r in ours.requests[1:]]
    assert listed == [["1. ours 0", "2. other 0"], ["1. ours 1", "2. other 1"]]
    assert system(other.requests[1]) == system(ours.requests[1])
    assert all(request.prompt[-1] == PROBLEM.messages[0] for request in ours.requests)
    assert [len(done.trajectories) for done in solution.rounds] == [2, 2, 1]
    assert [[m.text for m in done.messages] for done in solution.rounds[:-1]] == [
        ["ours 0", "other 0"],
        ["ours 1", "other 1"],
    ]
    assert [answer.content for answer in solution.answers] == ["<think>x</think>ours 2"]
    assert set(sampler.account.roles) == {"a", "b", "aggregate"}


async def test_proposers_of_one_model_draw_apart(tmp_path: Path) -> None:
    """Two proposers that share the run's model were the same sample twice."""
    backend = Scripted()
    async with dispatcher(backend, tmp_path) as dispatch:
        await agents(layers=2).solve(PROBLEM, episode(dispatch))
    assert len({request.seed for request in backend.requests}) == 3


async def test_a_failed_proposer_is_left_out_and_a_failed_aggregator_is_no_answer(tmp_path: Path) -> None:
    def reply(request: Request, n: int) -> str:
        if n != 1:
            raise RequestError("no")
        return "b"

    backend = Scripted(reply)
    async with dispatcher(backend, tmp_path, concurrency=1) as dispatch:
        solution = await agents(layers=2).solve(PROBLEM, episode(dispatch))
    assert system(backend.requests[2]).endswith("Responses from models:\n1. b")
    assert (solution.answers, solution.reason) == ((), "failed: no")


@pytest.mark.parametrize("roles", ["abc", [["a", "b"], []], [[]], [["a", 1], "b"], 5, [None]])
def test_roles_are_names_and_lists_of_names(roles: object) -> None:
    with pytest.raises(ValueError, match=r"strategy\.roles is .*; give a list of names"):
        replace(agents(), roles=roles)


def test_a_round_that_may_end_early_asks_one_role() -> None:
    """It was refused in the middle of the run, with the first round paid for."""
    for changes in ({}, {"roles": ("a", "b"), "views": RandomSubset(k=2)}):
        with pytest.raises(ValueError, match=r"use strategy/views=all and one name per round in strategy\.roles"):
            replace(agents(), schedule=Quorum(of=Fixed(widths=[4])), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("builder", [moa(), agglm(), revise()])
def test_a_prompt_shows_messages_as_data_and_keeps_the_other_turns(builder: PromptBuilder) -> None:
    turns = ({"role": "assistant", "content": "Hello."}, *user("2 + 2?"))
    problem = Problem(id="p", messages=turns)  # type: ignore[arg-type]
    assert builder(problem, []) == problem.messages
    prompt = builder(problem, MESSAGES)
    assert turns[0] in prompt
    whole = "".join(str(turn["content"]) for turn in prompt)
    assert whole.index("{{ 7 * 7 }} a") < whole.index("b\n" if builder != moa() else "2. b")
    assert "2 + 2?" in str(prompt[-1]["content"])
    assert [turn["role"] for turn in prompt][-2:] == ["assistant", "user"]


def test_references_go_behind_what_the_system_turn_says() -> None:
    build = SystemReferences(template="{% for r in ref_responses %}[{{ r }}]{% endfor %}")
    part = {"type": "text", "text": "Be brief."}
    for own, becomes in (
        ("Be brief.", "Be brief.\n\n[{{ 7 * 7 }} a][b]"),
        (None, "[{{ 7 * 7 }} a][b]"),
        ([part], [part, {"type": "text", "text": "[{{ 7 * 7 }} a][b]"}]),
    ):
        turns = ({"role": "system", "content": own}, *user("2 + 2?"))
        prompt = build(Problem(id="p", messages=turns), MESSAGES)  # type: ignore[arg-type]
        assert prompt == ({"role": "system", "content": becomes}, *user("2 + 2?"))


def configured(name: str) -> Strategy:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build(compose("config", [f"strategy={name}", "backend=mock"])).strategy


@pytest.mark.parametrize(
    ("name", "widths", "says"),
    [
        ("agglm", [8, 1], "Review the candidates"),
        ("self_moa", [6, 1], "Responses from models:"),
        ("sequential_revision", [1, 1, 1, 1], "Your previous answer was:"),
        ("moa", [3, 3, 1], "Responses from models:"),
    ],
)
async def test_the_shipped_configurations(name: str, widths: list[int], says: str, tmp_path: Path) -> None:
    backend = Scripted(lambda request, n: f"answer {n}")
    async with dispatcher(backend, tmp_path, concurrency=1) as dispatch:
        solution = await configured(name).solve(PROBLEM, episode(dispatch))
    assert [len(done.trajectories) for done in solution.rounds] == widths
    last = "".join(str(turn["content"]) for turn in backend.requests[-1].prompt)
    assert says in last
    before = range(sum(widths[:-2]), sum(widths[:-1]))
    assert all(f"answer {n}" in last for n in before)
    assert len(re.findall(r"answer \d", last)) == len(before)
