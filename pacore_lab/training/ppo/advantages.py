"""Generalized advantage estimation (arXiv 1506.02438), and the clipped objective of PPO (arXiv 1707.06347)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def gae(
    rewards: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, *, gamma: float, lam: float
) -> torch.Tensor:
    """Advantages [responses, tokens], 0 after a response's end.

    rewards [responses]: each paid with the last token. values [responses, tokens]: of the state before each token.
    lengths [responses]. A truncated response ends like any other: nothing is bootstrapped.
    """
    import torch

    found, carried = torch.zeros_like(values), torch.zeros_like(rewards)
    for t in reversed(range(values.shape[1])):
        goes_on = t + 1 < lengths
        after = values[:, t + 1] * gamma if t + 1 < values.shape[1] else torch.zeros_like(rewards)
        delta = torch.where(goes_on, after, rewards) - values[:, t]
        carried = torch.where(t < lengths, delta + gamma * lam * carried, 0.0)
        found[:, t] = carried
    return found


def whiten(advantages: torch.Tensor) -> torch.Tensor:
    """Scale a batch's advantages [tokens] to mean 0 and variance 1."""
    spread = advantages.var(unbiased=False)
    return (advantages - advantages.mean()) * (spread + 1e-8).rsqrt()


def clipped_loss(
    logprobs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per token [tokens]: PPO's loss, and whether it was clipped. old: log-probabilities at sampling time."""
    import torch

    ratio = (logprobs - old).exp()
    plain, bounded = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(plain, bounded), (bounded > plain).detach()
