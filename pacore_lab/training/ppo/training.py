"""`train`: from a policy, a tokenizer and an environment to a folder with a log, checkpoints and the trained policy."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pacore_lab.errors import ConfigError
from pacore_lab.results.disk import write_json
from pacore_lab.sampling.names import digest
from pacore_lab.training.environment import SynthesisEnvironment
from pacore_lab.training.ppo.settings import Settings

FREE = ("steps", "save_every", "snapshot_every", "micro_batch")
"""Settings that may change when a training is resumed."""


def train(policy: Any, tokenizer: Any, environment: SynthesisEnvironment, settings: Settings, out: Path) -> None:
    """Train `policy`, a transformers causal language model, in place; a training in `out` is resumed.

    Step t, slot s plays environment.instance(t * instances + s). out gets log.jsonl (a line per step), checkpoint-STEP
    (the last two), policy-STEP (as save_pretrained writes it) and settings.json.
    Raises ConfigError for a model that cannot be trained here, and if `out` holds another training.
    """
    from pacore_lab.training.ppo.batches import Episodes, stop_tokens
    from pacore_lab.training.ppo.shared_prompt import adopted
    from pacore_lab.training.ppo.trainer import PPOTrainer, checkpoints

    out.mkdir(parents=True, exist_ok=True)
    policy.float()
    with adopted(policy), asyncio.Runner() as runner:
        _claim(out, _described(policy, environment, settings))
        try:
            for grader in environment.graders.values():
                runner.run(grader.start())
            episodes = Episodes(environment, tokenizer, stop_tokens(policy, tokenizer), settings, runner)
            trainer = PPOTrainer(policy, episodes, settings, out)
            done = checkpoints(out)
            trainer.train(resume_from_checkpoint=str(done[-1]) if done else None)
        finally:
            for grader in environment.graders.values():
                runner.run(grader.close())


def _described(policy: Any, environment: SynthesisEnvironment, settings: Settings) -> dict[str, Any]:
    weights = hashlib.sha256()
    for tensor in policy.state_dict().values():
        weights.update(tensor.cpu().numpy().tobytes())
    records = [[r.id, r.conversation, r.responses, r.scores, r.answer] for r in environment.records]
    return {
        "settings": asdict(settings),
        "model": {"weights": weights.hexdigest()[:32]},
        "environment": {
            "records": digest(records),
            "m_min": environment.m_min,
            "m_max": environment.m_max,
            "seed": environment.seed,
            "graders": {name: grader.version for name, grader in environment.graders.items()},
        },
    }


def _claim(out: Path, described: dict[str, Any]) -> None:
    file = out / "settings.json"
    if file.exists() and (out / "log.jsonl").exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        for part, now in described.items():
            for key, value in now.items():
                if key not in FREE and before[part].get(key) != value:
                    raise ConfigError(
                        f"{out} holds a training with {key} {before[part].get(key)!r}, not {value!r}; name another "
                        "folder, or resume with the settings it began with"
                    )
    write_json(file, described)
