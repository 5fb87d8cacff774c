"""The weight of a trajectory, a number of 0 or more: for votes, for orders and for top-k compaction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pacore_lab.errors import require_number
from pacore_lab.types import Trajectory


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Every vote counts the same."""

    def __call__(self, trajectory: Trajectory) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """exp(mean log-probability / temperature); at 1.0 the tokens' geometric mean probability (2203.11171, table 1).

    A low temperature favours the likelier trajectories; a high one approaches an unweighted vote.
    """

    temperature: float = 1.0
    needs = frozenset({"logprobs"})

    def __post_init__(self) -> None:
        require_number("strategy.weight.temperature", self.temperature, above=0)

    def __call__(self, trajectory: Trajectory) -> float:
        return math.exp(_known(trajectory.completion.mean_logprob, trajectory) / self.temperature)


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """exp(mean log-probability of the least likely window of 64 tokens / temperature).

    Modelled on DeepConf's lowest group confidence (arXiv 2508.15260, section 3.1), but from the chosen tokens alone.
    """

    temperature: float = 1.0
    needs = frozenset({"logprobs"})

    def __post_init__(self) -> None:
        require_number("strategy.weight.temperature", self.temperature, above=0)

    def __call__(self, trajectory: Trajectory) -> float:
        windows = trajectory.completion.window_logprobs
        return math.exp(_known(min(windows) if windows else None, trajectory) / self.temperature)


@dataclass(frozen=True, kw_only=True)
class TraceConfidence:
    """The mean confidence of the tokens (DeepConf, arXiv 2508.15260, equation 3; `Completion.confidences`)."""

    needs = frozenset({"logprobs", "top_logprobs"})

    def __call__(self, trajectory: Trajectory) -> float:
        known = trajectory.completion.confidences
        return _known(math.fsum(known) / len(known) if known else None, trajectory)


@dataclass(frozen=True, kw_only=True)
class Length:
    """generated tokens ** power: -1 favours short trajectories, 1 long ones; 0 counts heads."""

    power: float = -1.0

    def __post_init__(self) -> None:
        require_number("strategy.weight.power", self.power)

    def __call__(self, trajectory: Trajectory) -> float:
        return math.pow(max(trajectory.completion.generated_tokens, 1), self.power)


def _known(value: float | None, trajectory: Trajectory) -> float:
    if value is None:
        raise ValueError(f"trajectory {trajectory.id} has no log-probabilities to weigh its vote by")
    return value
