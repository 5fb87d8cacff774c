"""Our data set under verl's own loader, as its trainer builds it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pacore_lab.errors import ConfigError, DataError
from pacore_lab.grading.code import LcbSubprocess
from pacore_lab.grading.math_grader import MathGrader
from pacore_lab.training import SynthesisEnvironment, read_records, write_records
from strategies.prompts import Template
from tests.verl.conftest import CHECKPOINT, Compose, record

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated", "ignore:This process .* is multi-threaded")


def trainer(config: Any) -> Any:
    """What of verl's trainer holds the data."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.utils.tokenizer import hf_tokenizer

    made = SimpleNamespace(
        config=config, tokenizer=hf_tokenizer(str(CHECKPOINT)), processor=None, trainer_mode="sync",
        parameter_sync_step=1,
    )  # fmt: skip
    PPOTrainer._init_dataloader(made)
    return made


def batch(made: Any) -> dict[str, list[Any]]:
    """The next one, as the trainer fetches it and hands it to the rollout."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    found = PPOTrainer._fetch_one_gen_batch(made)
    rows = {key: list(found[key]) for key in ("raw_prompt", "reward_model", "data_source", "extra_info", "index")}
    rows["told"] = [json.loads(row["ground_truth"]) for row in rows["reward_model"]]
    return rows


def environment(records: Path, **changed: Any) -> SynthesisEnvironment:
    graders = {"math": MathGrader(), "code": LcbSubprocess()}
    given = {"m_min": 16, "m_max": 24, "seed": 0, "prompt": Template(), "graders": graders}
    return SynthesisEnvironment(records=read_records(records), **{**given, **changed})


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_the_environments_instances(compose: Compose, records: Path, workers: int) -> None:
    """Whatever the number of loader processes. 3 steps of 16 over 21 problems: more than two epochs."""
    made = trainer(compose("trainer.total_training_steps=3", f"data.dataloader_num_workers={workers}"))
    assert (made.total_training_steps, made.steps_per_epoch) == (3, 3)
    expected = environment(records)
    shown: dict[str, set[str]] = {}
    for step in range(3):
        rows = batch(made)
        for slot in range(16):
            instance = expected.instance(16 * step + slot)
            assert rows["raw_prompt"][slot] == list(instance.prompt)
            assert rows["told"][slot] == {
                "record": instance.record,
                "number": 16 * step + slot,
                "domain": rows["data_source"][slot],
                "answer": instance.problem.answer,
                "scores": list(instance.scores),
            }
            assert rows["reward_model"][slot]["style"] == "rule"
            assert rows["index"][slot] == rows["extra_info"][slot]["index"] == 16 * step + slot
            shown.setdefault(instance.record, set()).add(rows["raw_prompt"][slot][-1]["content"])
    assert len(shown) == 21
    assert {len(prompts) for prompts in shown.values()} == {2, 3}, "every epoch has messages of its own"


def test_a_training_that_resumes_goes_on_with_the_same_draws(compose: Compose) -> None:
    """From the loader's state, as verl saves it with a checkpoint, in the middle of an epoch."""
    words = ("trainer.total_training_steps=4", "data.dataloader_num_workers=2")
    first = trainer(compose(*words))
    for _ in range(2):
        batch(first)
    state = first.train_dataloader.state_dict()
    later = trainer(compose(*words))
    later.train_dataloader.load_state_dict(state)
    for _ in range(2):
        expected, found = batch(first), batch(later)
        assert found["raw_prompt"] == expected["raw_prompt"]
        assert found["told"] == expected["told"]
    assert found["told"][0]["number"] == 48


def test_the_second_stage_goes_on_where_the_first_ended(compose: Compose) -> None:
    """More steps over other records, from the state at the end of the first: no draw of stage 1 comes again."""
    first = trainer(compose("trainer.total_training_steps=2", "data.dataloader_num_workers=2"))
    for _ in range(2):
        batch(first)
    second = trainer(compose("trainer.total_training_steps=5", "data.dataloader_num_workers=2"))
    second.train_dataloader.load_state_dict(first.train_dataloader.state_dict())
    assert [told["number"] for told in batch(second)["told"]] == list(range(32, 48))


def test_the_control_without_references(compose: Compose) -> None:
    made = trainer(compose("data.synthesis.m_min=0", "data.synthesis.m_max=0", "data.dataloader_num_workers=0"))
    rows = batch(made)
    assert all(told["scores"] == [] for told in rows["told"])
    assert all(len(prompt[-1]["content"]) < 30 for prompt in rows["raw_prompt"])


def test_a_prompt_beyond_the_budget_is_refused(compose: Compose) -> None:
    """verl's agent loop would cut off its left side, problem and all, and train on the rest."""
    made = trainer(compose("data.max_prompt_length=300", "data.dataloader_num_workers=0"))
    with pytest.raises(DataError, match=r"instance 0, record 'r\d+' .* the prompt has \d+ tokens, .* is 300"):
        batch(made)


def test_tokens_are_counted_as_verl_counts_them(compose: Compose, records: Path) -> None:
    from verl.utils.tokenizer import hf_tokenizer
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    from pacore_lab.training.verl.lengths import token_counter

    tokenizer = hf_tokenizer(str(CHECKPOINT))
    prompt = environment(records).instance(3).prompt
    builder = create_continuous_token_builder(tokenizer, model_family="qwen3")
    theirs = builder.build_initial_tokens([dict(turn) for turn in prompt])
    assert token_counter(tokenizer)(prompt) == len(theirs) > 300


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.shuffle=true", "data.shuffle is True"),
        ("data.seed=null", "data.seed is not set"),
        ("data.train_max_samples=5", "data.train_max_samples is 5"),
        ("data.synthesis.prompt=strategies.prompts.nothing", "'strategies.prompts.nothing', which makes no prompt"),
        ("~data.synthesis.m_min", "give it steps, prompt, m_min, m_max"),
        ("+data.synthesis.m_mean=20", "give it steps, prompt, m_min, m_max"),
    ],
)
def test_settings_that_would_draw_otherwise_are_refused(compose: Compose, word: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        trainer(compose(word))
    assert said in str(raised.value)


def test_pools_that_are_too_small_are_refused_before_the_first_step(compose: Compose, records: Path) -> None:
    write_records(records, [record(0, size=20)])
    with pytest.raises(ValueError, match="record 'r0' has 20 messages"):
        trainer(compose())


def test_a_tokenizer_that_hides_think_is_refused(compose: Compose) -> None:
    """Responses are decoded without special tokens: whole thoughts would be graded, and dumped, as conclusions."""
    from verl.trainer.ppo.utils import create_rl_dataset
    from verl.utils.tokenizer import hf_tokenizer

    tokenizer = hf_tokenizer(str(CHECKPOINT))
    tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
    config = compose().data
    with pytest.raises(ConfigError, match="</think> as a special token"):
        create_rl_dataset(config.train_files, config, tokenizer, None)
