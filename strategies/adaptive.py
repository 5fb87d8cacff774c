"""Schedules that depend on the rounds so far. All but ByDisagreement wrap another schedule, `of`; all can be wrapped.

They save compute compared with a fixed schedule. Whether they keep its accuracy has to be measured: part of PaCoRe's
gain comes from overruling wrong majorities (experiments/adaptive).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pacore_lab.errors import require_count, require_part, require_share
from pacore_lab.interfaces import Plan, Schedule, StopRule
from pacore_lab.types import Round


@dataclass(frozen=True, kw_only=True)
class Quorum:
    """Ends a round of several trajectories as soon as `share` of them are usable; the rest are aborted.

    Short trajectories finish first, so a store that other runs share becomes biased; finish_aborted=true prevents that.
    """

    of: Schedule
    share: float = 0.75
    needs = frozenset({"partial"})

    def __post_init__(self) -> None:
        require_part("strategy.schedule.of", self.of)
        require_share("strategy.schedule.share", self.share)

    def __call__(self, rounds: Sequence[Round]) -> Plan | None:
        plan = self.of(rounds)
        if plan is None or plan.width == 1:
            return plan
        return replace(plan, quorum=math.ceil(self.share * plan.width))


@dataclass(frozen=True, kw_only=True)
class SkipAgreed:
    """Ends after a round of several trajectories whose answers satisfy `rule`: they vote, nothing is synthesized."""

    of: Schedule
    rule: StopRule
    needs = frozenset({"answers"})

    def __post_init__(self) -> None:
        require_part("strategy.schedule.of", self.of)
        require_part("strategy.schedule.rule", self.rule)

    def __call__(self, rounds: Sequence[Round]) -> Plan | None:
        if rounds and len(rounds[-1].trajectories) > 1 and self.rule(rounds[-1].classes):
            return None
        return self.of(rounds)


@dataclass(frozen=True, kw_only=True)
class AgreementStop:
    """The first round ends as soon as its answers satisfy `rule` (adaptive consistency, arXiv 2305.11860, in round 1).

    batch: start this many trajectories at a time, which takes more steps but wastes nothing; None starts all at once
    and aborts the rest. then: if the round ended early, "vote" answers with its vote, and "synthesize" goes straight to
    the last round of one.
    """

    of: Schedule
    rule: StopRule
    batch: int | None = None
    then: Literal["vote", "synthesize"] = "vote"

    def __post_init__(self) -> None:
        require_part("strategy.schedule.of", self.of)
        require_part("strategy.schedule.rule", self.rule)
        if self.batch is not None:
            require_count("strategy.schedule.batch", self.batch)
        if self.then not in ("vote", "synthesize"):
            raise ValueError(f"strategy.schedule.then is {self.then!r}; give vote or synthesize")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"answers"} if self.batch else {"answers", "partial"})

    def __call__(self, rounds: Sequence[Round]) -> Plan | None:
        if not rounds:
            plan = self.of(rounds)
            return plan and replace(plan, stop=self.rule, batch=self.batch)
        if not rounds[0].stopped:
            return self.of(rounds)
        return Plan(width=1) if self.then == "synthesize" and len(rounds) == 1 else None


@dataclass(frozen=True, kw_only=True)
class ByDisagreement:
    """`first` trajectories, then `most` times the share of them outside the largest answer class, then one.

    A trajectory without an answer counts as outside. If all agree, the last round of one follows at once.
    """

    first: int
    most: int
    needs = frozenset({"answers"})

    def __post_init__(self) -> None:
        require_count("strategy.schedule.first", self.first)
        require_count("strategy.schedule.most", self.most)

    def __call__(self, rounds: Sequence[Round]) -> Plan | None:
        if len(rounds) == 1:
            return Plan(width=max(1, math.ceil(self.most * disagreement(rounds[0].classes))))
        if not rounds:
            return Plan(width=self.first)
        return None if len(rounds[-1].trajectories) == 1 else Plan(width=1)


@dataclass(frozen=True, kw_only=True)
class TokenBudget:
    """Runs `of`, narrowing its rounds so that a problem costs about `tokens`.

    The estimate is the mean cost per trajectory so far, aborted trajectories and the compaction's own samples included.
    A round that would not leave enough for the last round of one is narrowed; if only that one fits, it follows at
    once. The first round, whose cost is not known, the last trajectory, and the summaries of a round that another
    follows are sampled whatever they cost.
    """

    of: Schedule
    tokens: int

    def __post_init__(self) -> None:
        require_part("strategy.schedule.of", self.of)
        require_count("strategy.schedule.tokens", self.tokens)

    def __call__(self, rounds: Sequence[Round]) -> Plan | None:
        plan = self.of(rounds)
        if not rounds or plan is None:
            return plan
        spent = sum(done.tokens for done in rounds)
        mean = spent / max(1, sum(len(done.trajectories) for done in rounds))
        room = math.floor((self.tokens - spent) / mean) - 1 if mean else plan.width
        if room >= plan.width:
            return plan
        if room < 1:  # a trajectory alone is an answer, unless its summary was paid for and shall be read
            return None if len(rounds[-1].trajectories) == 1 and not rounds[-1].messages else Plan(width=1)
        return replace(plan, width=room)


def disagreement(classes: Sequence[int | None]) -> float:
    """The share of answers outside the largest class, in [0, 1]; 1 if there is no valid answer."""
    votes = Counter(name for name in classes if name is not None)
    return 1 - max(votes.values(), default=0) / len(classes)
