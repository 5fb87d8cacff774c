"""Our reward under verl's own reward worker, and its way through verl's dump into the paper's curves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pacore_lab.training.logs import read_log
from pacore_lab.training.verl import dumps, reward
from pacore_lab.types import Grade
from tests.verl.conftest import Compose

DOUBLE = "I think.</think>```python\nprint(2 * int(input()))\n```"
TWO = "I think.</think>```python\nprint(2)\n```"  # right for the first of two tests


def told(record: str = "r7", **changed: Any) -> str:
    given = {"record": record, "number": 0, "domain": "math", "answer": "21", "scores": [0.0, 0.0]}
    return json.dumps({**given, **changed})


@pytest_asyncio.fixture
async def worker(compose: Compose) -> AsyncIterator[Any]:
    """verl's, as its actor runs it, with the manager and the function that the recipe names."""
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    config = compose("reward.custom_reward_function.reward_kwargs.workers=1")
    reward._graders.cache_clear()
    yield RewardLoopWorker(config)
    await reward._graders(config.data.train_files, 1).close()
    reward._graders.cache_clear()


async def rewarded(worker: Any, text: str, ground_truth: str, *, ended: bool = True) -> float:
    """As verl's agent loop asks for the reward of one response."""
    import numpy as np
    import torch
    from tensordict import TensorDict
    from verl import DataProto

    tokenizer = worker.input_tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] * ended
    prompts, responses = torch.tensor([[5, 6, 7]]), torch.tensor([ids], dtype=torch.int64).reshape(1, -1)
    whole = torch.cat([prompts, responses], dim=1)
    tensors = {"prompts": prompts, "responses": responses, "input_ids": whole, "attention_mask": torch.ones_like(whole)}
    values = {
        "data_source": "math",
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": {"index": 0},
        "__num_turns__": 2,
        "tool_extra_fields": {"global_steps": 1},
    }
    data = DataProto(
        batch=TensorDict(tensors, batch_size=1),
        non_tensor_batch={key: np.array([value]) for key, value in values.items()},
    )
    found = await worker.compute_score(data)
    assert set(found) == {"reward_score", "reward_extra_info"}
    return float(found["reward_score"])


async def test_mathematics(worker: Any) -> None:
    assert await rewarded(worker, r"7 * 3</think>\boxed{21}", told()) == 1.0
    assert await rewarded(worker, r"7 * 3</think>\boxed{22}", told()) == 0.0
    assert await rewarded(worker, r"\boxed{21}</think>I am not sure.", told()) == 0.0, "of the thoughts, not the answer"
    assert await rewarded(worker, "", told(), ended=False) == 0.0
    assert await rewarded(worker, r"</think>\boxed{22}", told(answer="22")) == 0.0, "the records decide, not the row"


async def test_a_response_that_was_cut_off_has_no_answer(worker: Any) -> None:
    """Boxed in thoughts that the length limit ended, it would be rewarded: the text alone does not tell."""
    assert await rewarded(worker, r"perhaps \boxed{21}", told(), ended=False) == 0.0
    assert await rewarded(worker, r"perhaps \boxed{21}", told(), ended=True) == 1.0


async def test_code_is_paid_by_the_share_of_tests(worker: Any) -> None:
    """Asked all at once, as verl does, on graders that the first response starts."""
    ground_truth = told("r20", domain="code", answer=None)
    texts = [DOUBLE, TWO, "I think.</think>No program.", DOUBLE]
    assert await asyncio.gather(*(rewarded(worker, text, ground_truth) for text in texts)) == [1.0, 0.5, 0.0, 1.0]


async def test_a_record_of_another_file_is_no_silent_zero(worker: Any) -> None:
    from pacore_lab.errors import DataError

    with pytest.raises(DataError, match="there is no record 'r99'"):
        await rewarded(worker, r"\boxed{1}", told("r99"))


class Faulty:
    """A grader that cannot."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def grade(self, problem: Any, trajectory: Any) -> Grade:
        return Grade(score=None, reason="ungraded: \x1b[31mthe grader died")


async def test_ungraded_is_nothing_to_the_trainer_and_told_apart_in_its_dump(
    worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Through verl's own float32 tensor, its sum and its file, and from there into the log that the curves read."""
    from verl.experimental.agent_loop import AgentLoopOutput
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    texts = [r"That reference is off.</think>\boxed{21}", r"</think>\boxed{1}"]
    scores = [await rewarded(worker, text, told()) for text in texts]
    program = await rewarded(worker, TWO, told("r20", domain="code", answer=None))
    monkeypatch.setitem(reward._graders(worker.config.data.train_files, 1)._graders, "math", Faulty())
    lost = await rewarded(worker, texts[0], told())
    assert 0 < lost < 1e-29
    assert "\x1b" not in caplog.text
    assert "not graded, so no reward (record r7)" in caplog.text

    def summed(score: float) -> float:
        made = AgentLoopOutput(
            prompt_ids=[1], response_ids=[2, 3], response_mask=[1, 1], reward_score=score, num_turns=2,
            metrics=AgentLoopMetrics(),
        )  # fmt: skip
        return made.as_dict()["rm_scores"].unsqueeze(0).sum(dim=1).tolist()[0]

    assert summed(lost) == reward.UNGRADED
    every = [told(), told(), told(), told("r20", domain="code", scores=[1.0, 0.0])]
    outputs, paid = [*texts, texts[0], TWO], [*scores, lost, program]
    names = {"uid": [f"a_{i}_0" for i in range(4)]}
    rollouts, metrics, to = tmp_path / "rollouts", tmp_path / "metrics", tmp_path / "log.jsonl"
    PPOTrainer._write_generations(["?"] * 4, outputs, every, [summed(each) for each in paid], names, str(rollouts), 3)
    metrics.mkdir()
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(metrics / "1.jsonl"))
    from verl.utils.tracking import FileLogger

    logger = FileLogger("p", "e")
    logger.log({"response_length/mean": 12.5}, 3)
    logger.finish()
    monkeypatch.setattr("sys.argv", ["dumps", str(rollouts), "--metrics", str(metrics), "--to", str(to)])
    dumps.main()
    (step,) = read_log(to)
    assert (step.step, step.length, step.reward) == (3, 12.5, 0.5)
    assert step.counts == {
        "responses": 4, "graded": 3, "all_wrong": 2, "emergent": 1, "cross_checks": 2, "concluding": 0,
    }  # fmt: skip


async def test_a_plain_manager_and_ours_agree_on_what_was_not_cut(compose: Compose, worker: Any) -> None:
    """verl's own manager, without what ours adds."""
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

    plain = NaiveRewardManager(worker.config, worker.input_tokenizer, worker.reward_manager.compute_score)
    ours, worker.reward_manager = worker.reward_manager, plain
    theirs = await rewarded(worker, r"</think>\boxed{21}", told())
    worker.reward_manager = ours
    assert theirs == await rewarded(worker, r"</think>\boxed{21}", told()) == 1.0
