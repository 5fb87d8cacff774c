"""A training's settings."""

from __future__ import annotations

from dataclasses import dataclass

from pacore_lab.errors import require_count


@dataclass(frozen=True, kw_only=True)
class Settings:
    """PPO with a critic, strictly on-policy: each batch makes one optimiser step.

    The paper (arXiv 2601.05593, section 2.2) gives instances, responses, gamma, lam and temperature, and uses neither a
    KL term nor an entropy bonus. It gives no learning rate for this stage. All other values are ours.

    steps: optimiser steps in all. instances, responses: (x, M) per batch, and responses to each (2 or more).
    max_tokens: per response; a truncated response gets the reward the grader gives it.
    lr, critic_lr: of AdamW, constant. critic_warmup: the number of first steps that train the critic alone.
    clip: PPO's epsilon. The ratio is to the probabilities at sampling time, so it is 1 up to rounding.
    max_grad_norm: for the policy and for the critic separately.
    save_every: steps between checkpoints, of which two are kept. snapshot_every: steps between permanent copies of the
    policy; 0 keeps only the last. micro_batch: tokens per forward pass, padding included.
    half: bfloat16 autocast in training (not in rollouts).
    Raises ValueError for values out of range.
    """

    steps: int
    instances: int = 16
    responses: int = 64
    max_tokens: int = 1024
    lr: float = 1e-4
    critic_lr: float = 3e-4
    critic_warmup: int = 0
    temperature: float = 1.0
    clip: float = 0.2
    gamma: float = 1.0
    lam: float = 1.0
    max_grad_norm: float = 1.0
    seed: int = 0
    save_every: int = 50
    snapshot_every: int = 0
    micro_batch: int = 4096
    half: bool = True

    def __post_init__(self) -> None:
        for key in ("steps", "instances", "max_tokens", "save_every", "micro_batch"):
            require_count(key, getattr(self, key))
        require_count("responses", self.responses, least=2)
        for key in ("critic_warmup", "snapshot_every"):
            require_count(key, getattr(self, key), least=0)
        for key in ("lr", "critic_lr", "temperature", "clip", "max_grad_norm"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} is {getattr(self, key)}; give a number above 0")
        for key in ("gamma", "lam"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key} is {getattr(self, key)}; it must lie in [0, 1]")
