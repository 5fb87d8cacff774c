"""One round: whom it asks, with which prompt, and when it ends; and the answer after the last round."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pacore_lab.interfaces import AnyCompaction, AskingCompaction, Grader, Plan, Sampler
from pacore_lab.types import Message, Problem, Prompt, Round, Solution, Trajectory
from strategies.election import classified, elected


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A request for `n` trajectories of one prompt. role: who samples them; None is the run's own model."""

    prompt: Prompt
    n: int
    role: str | None = None

    @property
    def to(self) -> dict[str, Any]:
        return {} if self.role is None else {"role": self.role}


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """A round's trajectories in draw order. stopped: the plan's stop rule ended the round."""

    trajectories: Sequence[Trajectory] = ()
    stopped: bool = False

    def round(self, shown: Sequence[Trajectory], messages: tuple[Message, ...] = (), *, tokens: int) -> Round:
        """The finished round. shown: its trajectories in message order. tokens: everything the round has generated."""
        return Round(
            trajectories=tuple(trajectory.id for trajectory in shown),
            messages=messages,
            classes=tuple(trajectory.answer_class for trajectory in self.trajectories),
            tokens=tokens,
            stopped=self.stopped,
        )


async def draw(asks: Sequence[Ask], plan: Plan, sampler: Sampler, grader: Grader | None = None) -> Draws:
    """Sample a round until its plan has enough.

    grader: sets each trajectory's `answer` and `answer_class`; None leaves them unset.
    Raises ValueError if the plan may end early and there are several asks, which cannot share a stream.
    """
    if plan.quorum is None and plan.stop is None and plan.batch is None:
        found = await asyncio.gather(*(sampler.sample(ask.prompt, ask.n, **ask.to) for ask in asks))
        return Draws(trajectories=await _compared([each for part in found for each in part], grader))
    if len(asks) > 1:
        raise ValueError("a round that may end early asks one role with one prompt; use strategy/views=all")
    return await (_in_batches if plan.batch else _as_they_come)(asks[0], plan, sampler, grader)


async def compacted(
    compaction: AnyCompaction,
    problem: Problem,
    trajectories: Sequence[Trajectory],
    sampler: Sampler,
    *,
    last: bool = False,
) -> tuple[Message, ...]:
    """M_r = C(Omega_r) (equation 2), whether or not the compaction asks a model.

    last: no round follows, so a model is not asked: nobody would read its messages, yet their tokens would count.
    """
    if isinstance(compaction, AskingCompaction):
        return () if last else await compaction.compact(problem, trajectories, sampler)
    return compaction(trajectories)


async def answer(shown: Sequence[Trajectory], rounds: Sequence[Round], grader: Grader | None) -> Solution:
    """The last round's trajectory, or the vote if it has several.

    Raises ValueError if a vote has no grader, and if the schedule planned no round.
    """
    if not rounds:
        raise ValueError("strategy.schedule plans no round; it must plan at least one")
    if len(shown) == 1:
        return Solution.of(shown[0], rounds)
    if grader is None:
        raise ValueError(
            "strategy.schedule ends with a round of several trajectories, which takes a vote; set strategy.grader"
        )
    return elected(await classified(shown, grader), rounds)


def spent(sampler: Sampler) -> int:
    """The episode's tokens so far; 0 for a sampler without an account."""
    return getattr(sampler, "spent", 0)


async def _in_batches(ask: Ask, plan: Plan, sampler: Sampler, grader: Grader | None) -> Draws:
    assert plan.batch is not None
    found: list[Trajectory] = []
    while len(found) < plan.width and not _enough(found, plan):
        batch = await sampler.sample(ask.prompt, min(plan.batch, plan.width - len(found)), **ask.to)
        found = await _compared([*found, *batch], grader)
    return Draws(trajectories=found, stopped=_stopped(found, plan))


async def _as_they_come(ask: Ask, plan: Plan, sampler: Sampler, grader: Grader | None) -> Draws:
    found: list[Trajectory] = []
    async with sampler.stream(ask.prompt, ask.n, **ask.to) as arrivals:
        async for trajectory in arrivals:
            found = await _compared([*found, trajectory], grader)
            if _enough(found, plan):
                break
    by_index = sorted(found, key=lambda trajectory: trajectory.index)
    return Draws(trajectories=await _compared(by_index, grader), stopped=_stopped(found, plan))


async def _compared(found: list[Trajectory], grader: Grader | None) -> list[Trajectory]:
    return found if grader is None else await classified(found, grader)


def _enough(found: Sequence[Trajectory], plan: Plan) -> bool:
    usable = sum(trajectory.error is None for trajectory in found)
    return (plan.quorum is not None and usable >= plan.quorum) or _stopped(found, plan)


def _stopped(found: Sequence[Trajectory], plan: Plan) -> bool:
    """Stop rules see the answers in order of arrival."""
    return plan.stop is not None and plan.stop([trajectory.answer_class for trajectory in found])
