"""Scores from the model's own probabilities, free if the engine reports them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.interfaces import Sampler
from pacore_lab.types import Problem, Trajectory
from strategies.scorers.score import Score


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """exp(mean log-probability of the tokens), their geometric mean probability; it ranks like the mean itself."""

    needs = frozenset({"logprobs"})

    async def __call__(self, problem: Problem, trajectories: Sequence[Trajectory], sampler: Sampler) -> list[Score]:
        return [_likelihood(trajectory.completion.mean_logprob) for trajectory in trajectories]


@dataclass(frozen=True, kw_only=True)
class SelfCertainty:
    """The mean token confidence (`Completion.confidences`), each over the `model.top_logprobs` likeliest tokens.

    Over the whole vocabulary V this is self-certainty (arXiv 2502.18581) plus the constant log V, so it ranks the same;
    over 20 tokens it is the average trace confidence of DeepConf (arXiv 2508.15260).
    """

    needs = frozenset({"logprobs", "top_logprobs"})

    async def __call__(self, problem: Problem, trajectories: Sequence[Trajectory], sampler: Sampler) -> list[Score]:
        return [_certainty(trajectory.completion.confidences) for trajectory in trajectories]


def _likelihood(mean_logprob: float | None) -> Score:
    if mean_logprob is None:
        return Score(value=None, reason="no log-probabilities")
    return Score(value=math.exp(mean_logprob))


def _certainty(confidences: tuple[float, ...] | None) -> Score:
    if not confidences:
        return Score(value=None, reason="no confidences")
    return Score(value=math.fsum(confidences) / len(confidences))
