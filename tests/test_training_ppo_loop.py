"""The training loop: what it learns from, what it logs, and that a resumed training is the uninterrupted one."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from backends._chat import Chat
from backends._checkpoint import stop_tokens as stop_tokens_of_the_engines
from pacore_lab.errors import ConfigError, LabError
from pacore_lab.grading import MathGrader
from pacore_lab.training import Record, SynthesisEnvironment, write_records
from pacore_lab.training.ppo import Rollout, Settings, __main__, train
from pacore_lab.training.ppo.batches import Episodes, render, stop_tokens, trajectory
from pacore_lab.training.ppo.log import Log, read_log
from pacore_lab.training.ppo.shared_prompt import adopted
from pacore_lab.types import Grade, Model, Problem, Trajectory
from strategies.prompts import published
from tests.doubles import user
from tests.tiny_hf import folder, net, tokenizer

assert folder
assert net
assert tokenizer
Score = Callable[[Trajectory], float | None]


def early(found: Trajectory) -> float:
    """A reward that is easily learned: the share of early letters."""
    return sum("a" <= letter <= "m" for letter in found.content) / max(1, len(found.content))


class Grader:
    """Scores by a function of the trajectory, and breaks down when told to."""

    version = "double"

    def __init__(self, score: Score = early, breaks_after: int | None = None) -> None:
        self.score, self.left, self.closed = score, breaks_after, False

    async def start(self) -> None: ...

    async def close(self) -> None:
        self.closed = True

    async def grade(self, problem: Problem, response: Trajectory) -> Grade:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("killed")
        return Grade(score=self.score(response))


RECORDS = [
    Record(id=f"r{i}", conversation=user(f"{i}?"), responses=("it is 1", "2"), scores=(0.0, 0.0), answer="3")
    for i in range(3)
]


def environment(grader: Grader | None = None, m_min: int = 0, m_max: int = 1, **changed: Any) -> SynthesisEnvironment:
    settings = {"records": RECORDS, "prompt": published(), "graders": {"math": grader or Grader()}, **changed}
    return SynthesisEnvironment(m_min=m_min, m_max=m_max, **settings)


def settings(**changed: Any) -> Settings:
    small = {"steps": 4, "instances": 2, "responses": 4, "max_tokens": 5, "save_every": 2, "half": False}
    return Settings(**{**small, "micro_batch": 400, **changed})


def run(net: Any, tokenizer: Any, out: Path, given: SynthesisEnvironment | None = None, **changed: Any) -> Any:
    policy = copy.deepcopy(net)
    train(policy, tokenizer, given or environment(), settings(**changed), out)
    return policy


def untimed(out: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key not in ("seconds", "spent")}
        for line in read_log(out / "log.jsonl")
    ]


@pytest.mark.parametrize("warmup", [0, 3])
def test_a_killed_training_goes_on_as_if_it_had_not_been(net: Any, tokenizer: Any, tmp_path: Path, warmup: int) -> None:
    """Killed in step 6 of 7, after the checkpoint of step 4: policy, critic, optimiser, draws and log are as if never.

    Step 5 was logged already, and is made again.
    """
    changed = {"steps": 7, "critic_warmup": warmup, "seed": 5}
    whole = run(net, tokenizer, tmp_path / "whole", **changed)
    grader = Grader(breaks_after=5 * 8 + 3)
    with pytest.raises(RuntimeError, match="killed"):
        run(net, tokenizer, tmp_path / "killed", environment(grader), **changed)
    assert grader.closed
    assert len(untimed(tmp_path / "killed")) == 5
    with (tmp_path / "killed" / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "rew')
    resumed = run(net, tokenizer, tmp_path / "killed", **changed)
    assert untimed(tmp_path / "killed") == untimed(tmp_path / "whole")
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_a_training_leaves_behind(net: Any, tokenizer: Any, tmp_path: Path) -> None:
    policy = run(net, tokenizer, tmp_path, steps=7, snapshot_every=3)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "log.jsonl", "settings.json", "checkpoint-6", "checkpoint-7", "policy-3", "policy-6", "policy-7"
    }  # fmt: skip
    shipped = AutoModelForCausalLM.from_pretrained(tmp_path / "policy-7")
    assert shipped.config.use_cache
    assert stop_tokens(shipped, tokenizer) == stop_tokens(net, tokenizer)
    for one, other in zip(shipped.parameters(), policy.parameters(), strict=True):
        assert torch.equal(one, other)
    lines = read_log(tmp_path / "log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 8))
    for line in lines:
        assert line["counts"]["responses"] == line["counts"]["graded"] == 8
        assert line["reward"] == pytest.approx(line["counts"]["reward"] / 8)
        assert line["length"] == line["tokens"] / 8 <= 5
        assert sum(graded for graded, _ in line["by_messages"].values()) == 8
        assert line["messages"] == pytest.approx(sum(int(m) * n for m, (n, _) in line["by_messages"].items()) / 8)
        assert line["clipped"] == 0, "one step per batch: the ratio is 1"
        assert line["entropy"] > 0
        assert line["grad_norm"] > 0
    assert json.loads((tmp_path / "settings.json").read_text())["settings"]["steps"] == 7


def test_a_reward_rises(net: Any, tokenizer: Any, tmp_path: Path) -> None:
    changed = {"steps": 25, "instances": 4, "responses": 16, "max_tokens": 3, "lr": 0.01, "half": True}
    run(net, tokenizer, tmp_path, environment(m_min=0, m_max=0), **changed)
    rewards = [line["reward"] for line in read_log(tmp_path / "log.jsonl")]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2, rewards


def test_while_the_critic_warms_up_the_policy_stays(net: Any, tokenizer: Any, tmp_path: Path) -> None:
    policy = run(net, tokenizer, tmp_path, steps=3, critic_warmup=3)
    for one, other in zip(policy.parameters(), net.parameters(), strict=True):
        assert torch.equal(one, other)
    saved = torch.load(tmp_path / "checkpoint-3" / "critic.pt", weights_only=True)
    assert saved["head.weight"].any()
    assert [line["lr"] for line in read_log(tmp_path / "log.jsonl")] == [0.0] * 3


def test_a_training_without_any_grade_changes_nothing(net: Any, tokenizer: Any, tmp_path: Path) -> None:
    policy = run(net, tokenizer, tmp_path, environment(Grader(lambda found: None)), steps=2)
    for one, other in zip(policy.parameters(), net.parameters(), strict=True):
        assert torch.equal(one, other)
    for line in read_log(tmp_path / "log.jsonl"):
        assert (line["reward"], line["entropy"], line["value_loss"]) == (None, None, None)
        assert (line["counts"]["responses"], line["counts"]["graded"]) == (8, 0)


def play(net: Any, tokenizer: Any, score: Score, numbers: range = range(4)) -> Any:
    policy = copy.deepcopy(net)
    with adopted(policy), asyncio.Runner() as runner:
        given = environment(Grader(score), m_min=0, m_max=2)
        return Episodes(given, tokenizer, stop_tokens(net, tokenizer), settings(), runner).play(policy, 0, numbers)


def test_ungraded_responses_are_left_out_and_counted(net: Any, tokenizer: Any) -> None:
    """As 0 they would be punished for a fault of the grader."""
    batch = play(net, tokenizer, lambda found: None if found.index % 2 else 0.25 * found.index)
    assert batch.rewards == [0.0, 0.5] * 4
    assert [list(piece.places) for piece in batch.pieces] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    responses = [tokens for piece in batch.pieces for tokens in piece.responses]
    assert [len(tokens) for tokens in responses] == [len(logs) for logs in batch.logprobs]
    assert (batch.facts["counts"].responses, batch.facts["counts"].graded) == (16, 8)
    assert batch.facts["reward"] == 0.25
    none_of_one = play(net, tokenizer, lambda found: None if found.id.startswith("0:1:") else 1.0)
    assert len(none_of_one.pieces) == 3


def test_instances_and_draws_follow_from_step_and_number(net: Any, tokenizer: Any) -> None:
    first, again, later = (play(net, tokenizer, early, n) for n in (range(4), range(4), range(4, 8)))
    assert first.pieces == again.pieces
    given = environment(m_min=0, m_max=2)
    for batch, start in ((first, 0), (later, 4)):
        assert [piece.prompt for piece in batch.pieces] == [
            render(tokenizer, given.instance(start + slot).prompt) for slot in range(4)
        ]


def test_prompts_texts_and_stops_are_those_of_the_labs_engines(net: Any, tokenizer: Any) -> None:
    """A policy trained on other tokens than it is evaluated on is trained on another problem."""
    chat = Chat(Model(name="tiny"), tokenizer, 400)
    prompt = environment(m_min=1).instance(0).prompt
    assert render(tokenizer, prompt) == chat._render(json.dumps(prompt))[1]
    assert stop_tokens(net, tokenizer) == stop_tokens_of_the_engines(net.generation_config, tokenizer)
    tokens = tokenizer("<think>é 1 </think>  so , 2 .", add_special_tokens=False)["input_ids"]
    ended = Rollout(tokens=(*tokens, tokenizer.eos_token_id), logprobs=(0.0,), finish_reason="stop")
    cut = Rollout(tokens=tuple(tokens), logprobs=(0.0,), finish_reason="length")
    for rollout in (ended, cut):
        found = trajectory(tokenizer, rollout, "t")
        assert found.content == chat.decode(tokens) == "<think>é 1 </think>  so , 2 ."
        assert found.truncated == (rollout is cut)
        assert found.completion.generated_tokens == len(rollout.tokens)


def test_a_training_that_broke_stops(net: Any, tokenizer: Any, tmp_path: Path) -> None:
    """It would go on for hours, and write checkpoints of not-a-numbers over the good ones."""
    with pytest.raises(LabError, match="step 1: the loss is not finite"):
        run(net, tokenizer, tmp_path, environment(Grader(lambda found: float("inf"))))
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_folder_of_another_training_is_refused(net: Any, tokenizer: Any, tmp_path: Path) -> None:
    run(net, tokenizer, tmp_path, steps=1)
    with pytest.raises(ConfigError, match=r"holds a training with lr 0\.0001, not 0\.5"):
        run(net, tokenizer, tmp_path, lr=0.5)
    with pytest.raises(ConfigError, match="m_max 1, not 2"):
        run(net, tokenizer, tmp_path, environment(m_max=2))
    other = copy.deepcopy(net)
    torch.nn.init.zeros_(other.get_input_embeddings().weight)
    with pytest.raises(ConfigError, match="holds a training with weights"):
        run(other, tokenizer, tmp_path)
    run(net, tokenizer, tmp_path, steps=3)
    assert len(untimed(tmp_path)) == 3, "more steps are the same training"


def test_a_prompt_beyond_the_context_is_refused(net: Any, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="makes a prompt of .* tokens, and max_tokens is 390; the context holds 400"):
        run(net, tokenizer, tmp_path, max_tokens=390)


@pytest.mark.parametrize("changed", [{"steps": 0}, {"responses": 1}, {"lr": 0.0}, {"lam": 1.5}, {"critic_warmup": -1}])
def test_settings_that_cannot_be(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        settings(**changed)


def test_the_log_goes_on_where_the_checkpoint_is(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    facts = {"reward": 0.5, "length": 3.0, "truncated": 0, "entropy": None, "explained_variance": None}
    first = Log(file, 0)
    for step in (1, 2, 3):
        first.add({**facts, "step": step, "grad_norm": 1.0, "spent": {}})
    lines = [{**line, "seconds": 100.0 * line["step"]} for line in read_log(file)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    Log(file, 2).add({**facts, "step": 3, "grad_norm": 1.0, "spent": {}})
    again = read_log(file)
    assert [line["step"] for line in again] == [1, 2, 3]
    assert 200 <= again[-1]["seconds"] < 300, "time of the steps that were lost is not counted"


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["ppo", *map(str, words)])
    __main__.main()


def test_the_command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    records = tmp_path / "records.jsonl"
    write_records(records, RECORDS)
    words = ("--model", folder, "--records", records, "--out", tmp_path / "out", "--m-min", 0, "--m-max", 1)
    small = ("--steps", 2, "--instances", 2, "--responses", 2, "--max-tokens", 4)
    command(monkeypatch, *words, *small)
    assert "step     2  reward 0.000" in capsys.readouterr().out
    assert len(read_log(tmp_path / "out" / "log.jsonl")) == 2
    for extra, said in (
        (("--lr", 0.5), "holds a training with lr"),
        (("--model", tmp_path), "has no config.json"),
        (("--m-max", 3), "m_max is 3, but record 'r0' has 2 messages"),
        (("--lam", 2), "lam is 2.0"),
        (("--prompt", "strategies.prompts.nothing"), "nothing"),
    ):
        with pytest.raises(SystemExit) as stopped:
            command(monkeypatch, *words, *small, *extra)
        error = capsys.readouterr().err
        assert stopped.value.code == 2
        assert error.startswith("error: ")
        assert said in error
        assert error.count("\n") == 1


def test_grading_by_the_math_grader_of_the_core(net: Any, tokenizer: Any) -> None:
    """Responses of random weights have no box: a 0 with a reason, and with every message wrong none is emergent."""
    policy = copy.deepcopy(net)
    with adopted(policy), asyncio.Runner() as runner:
        given = environment(m_min=1, graders={"math": MathGrader()})
        batch = Episodes(given, tokenizer, stop_tokens(net, tokenizer), settings(), runner).play(policy, 0, range(2))
    counts = batch.facts["counts"]
    assert (counts.graded, counts.reward, counts.all_wrong, counts.emergent) == (8, 0.0, 8, 0)
