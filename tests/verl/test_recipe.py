"""`experiments/train_pacore_8b/recipe.yaml` as verl composes and validates it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.verl.conftest import CHECKPOINT, RECIPE, Compose

PUBLISHED = {
    "algorithm.adv_estimator": "gae",
    "algorithm.gamma": 1.0,
    "algorithm.lam": 1.0,
    "algorithm.use_kl_in_reward": False,
    "actor_rollout_ref.actor.use_kl_loss": False,
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "data.train_batch_size": 16,
    "actor_rollout_ref.rollout.n": 64,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.rollout.top_p": 1.0,
    "actor_rollout_ref.rollout.top_k": -1,
    "actor_rollout_ref.rollout.max_model_len": 131072,
    "data.synthesis.prompt": "strategies.prompts.published",
    "data.synthesis.m_min": 16,
    "data.synthesis.m_max": 24,
    "trainer.total_training_steps": 250,
    # strictly on-policy: a batch is sampled by the weights that it updates, once
    "trainer.use_v1": True,
    "trainer.v1.trainer_mode": "sync",
    "actor_rollout_ref.actor.ppo_mini_batch_size": 16,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "critic.ppo_mini_batch_size": 16,
    "critic.ppo_epochs": 1,
}


def test_every_published_value_stands_in_the_composed_config(compose: Compose) -> None:
    """A key that verl renamed would be a new one beside its default, and the default would train."""
    from omegaconf import OmegaConf

    config = compose()
    assert {key: OmegaConf.select(config, key, throw_on_missing=True) for key in PUBLISHED} == PUBLISHED
    assert config.data.max_prompt_length + config.data.max_response_length == 131072
    rollout = config.actor_rollout_ref.rollout
    assert (rollout.prompt_length, rollout.response_length) == (32768, 98304)


def test_the_overlay_adds_no_key_that_verl_does_not_have(compose: Compose) -> None:
    """Hydra lets a config file add keys; only these are ours, everything else has to be verl's."""
    from hydra import compose as plain
    from hydra import initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module("verl.trainer.config", version_base=None):
        theirs = _leaves(OmegaConf.to_container(plain("ppo_trainer")))
    added = {key for key in _leaves(OmegaConf.to_container(compose())) - theirs}
    ours = ("data.synthesis.", "reward.custom_reward_function.reward_kwargs.")
    assert not {key for key in added if not key.startswith(ours)}
    assert len(added) == 6


def _leaves(value: Any, name: str = "") -> set[str]:
    if not isinstance(value, dict) or not value:
        return {name}
    return {leaf for key, each in value.items() for leaf in _leaves(each, f"{name}.{key}".lstrip("."))}


@pytest.mark.parametrize("words", [(), ("trainer.nnodes=4",), ("trainer.total_training_steps=700",)])
def test_verl_finds_the_recipe_valid(compose: Compose, words: tuple[str, ...], capsys: Any) -> None:
    _validate(compose(*words))
    assert "All configuration checks passed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("actor_rollout_ref.actor.loss_agg_mode=mean", "Invalid loss_agg_mode"),
        ("actor_rollout_ref.actor.use_dynamic_bsz=false", "micro_batch_size"),
    ],
)
def test_verls_validation_looks(compose: Compose, word: str, said: str) -> None:
    from hydra.errors import InstantiationException

    with pytest.raises((ValueError, AssertionError, InstantiationException), match=said):
        _validate(compose(word))


def _validate(config: Any) -> None:
    """As `verl.trainer.main_ppo.main` does it, and the parts of the config that its workers make dataclasses of."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    assert need_critic(config)
    assert not need_reference_policy(config), "a KL term would need one"
    validate_config(config=config, use_reference_policy=False, use_critic=True)
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    assert (rollout.n, rollout.max_model_len) == (64, 131072)
    corrected = omega_conf_to_dataclass(config.algorithm).rollout_correction
    assert (corrected["rollout_is"], corrected["rollout_is_threshold"]) == ("token", 8.0)


def test_the_command_of_the_readme_composes(records: Path, tmp_path: Path) -> None:
    """train.sh itself, up to where verl would start."""
    import yaml

    command = [str(RECIPE / "train.sh"), str(CHECKPOINT), str(records), str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "trainer.total_training_steps=700", "--cfg", "job", "--resolve"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    config = yaml.safe_load(done.stdout[done.stdout.index("actor_rollout_ref:") :])
    assert config["data"]["synthesis"]["steps"] == 700
    assert config["reward"]["custom_reward_function"]["reward_kwargs"]["records"] == str(records)
    assert config["critic"]["model"]["path"] == str(CHECKPOINT)
    assert config["trainer"]["rollout_data_dir"] == f"{tmp_path / 'out'}/rollouts"
    metrics = config["ray_kwargs"]["ray_init"]["runtime_env"]["env_vars"]["VERL_FILE_LOGGER_PATH"]
    assert Path(metrics).parent == tmp_path / "out" / "metrics"
    assert Path(metrics).parent.is_dir(), "verl's file logger makes no folder"


def test_the_metrics_file_reaches_the_trainers_process(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in a process of Ray's: what the shell exports on one node is not what it sees on another."""
    import ray
    from verl.trainer.main_ppo import run_ppo

    class Reached(Exception):
        pass

    def init(**given: Any) -> None:
        raise Reached(given["runtime_env"]["env_vars"]["VERL_FILE_LOGGER_PATH"])

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(Reached, match="/x/y.jsonl"):
        run_ppo(compose("+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH=/x/y.jsonl"), None)
