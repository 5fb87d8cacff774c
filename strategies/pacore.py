"""Parallel Coordinated Reasoning (arXiv 2601.05593, section 2.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

from pacore_lab.errors import require_count
from pacore_lab.interfaces import (
    AskingCompaction,
    Compaction,
    Grader,
    Order,
    Plan,
    PromptBuilder,
    Sampler,
    Schedule,
    Views,
    needs_of,
)
from pacore_lab.types import Message, Problem, Prompt, Round, Solution, Trajectory
from strategies.answers import classified, elected, require_comparable
from strategies.schedules import Fixed
from strategies.views import All


@dataclass(frozen=True, kw_only=True)
class PaCoRe:
    """Rounds of w_r^(i) ~ pi(. | P(x, M_{r-1})), i = 1..K_r, and M_r = C(Omega_r), the last of width 1: the answer.

    views: which of the messages each trajectory is shown, all of them in the paper. grader: compares answers, for parts
    that need that, and for a vote where a schedule ends with a round of several. roles: who samples the first round,
    the second, ...; the last one all further rounds; none: the run's model.
    accumulate: show the messages of all rounds so far, the oldest first; in the paper, those of the last one.
    """

    schedule: Schedule
    prompt: PromptBuilder
    order: Order
    compaction: Compaction | AskingCompaction
    views: Views = All()  # noqa: RUF009 - frozen
    grader: Grader | None = None
    roles: Sequence[str] = ()
    accumulate: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.roles, str):
            raise ValueError(f"strategy.roles is {self.roles!r}; give a list of names, e.g. [explore, synthesize]")
        if self._compares:
            require_comparable(self.grader)

    @cached_property
    def _compares(self) -> bool:
        return "answers" in needs_of(self)

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        messages: tuple[Message, ...] = ()
        rounds: list[Round] = []
        plan = self.schedule(rounds)
        while plan:
            trajectories: list[Trajectory] = []  # the last round is stored: its text is not held while this one runs
            trajectories = self.order(await self._sample(problem, messages, plan, sampler, len(rounds)))
            rounds.append(Round.of(trajectories))
            plan = self.schedule(rounds)
            compacted = await self._compact(problem, trajectories, sampler, last=plan is None)
            messages = (*messages, *compacted) if self.accumulate else compacted
            rounds[-1] = replace(rounds[-1], messages=messages)
        if len(trajectories) == 1:
            return Solution.of(trajectories[0], rounds)
        if self.grader is None:
            raise ValueError("strategy.schedule ends with a round of several, which takes a vote; set strategy.grader")
        return elected(await classified(trajectories, self.grader), rounds)

    async def _sample(
        self, problem: Problem, messages: tuple[Message, ...], plan: int | Plan, sampler: Sampler, finished: int
    ) -> list[Trajectory]:
        plan = Plan(width=plan) if isinstance(plan, int) else plan
        role: dict[str, Any] = {"role": self.roles[min(finished, len(self.roles) - 1)]} if self.roles else {}
        shown = [(view, len(list(same))) for view, same in groupby(self.views(messages, plan.width))]
        prompts = [(self.prompt(problem, view), count) for view, count in shown]
        if plan == Plan(width=plan.width):
            calls = [sampler.sample(prompt, count, **role) for prompt, count in prompts]
            return await self._classified([each for found in await asyncio.gather(*calls) for each in found])
        if len(prompts) > 1:
            raise ValueError("a round that may end early shows all its trajectories one prompt; use strategy/views=all")
        return await self._until(prompts[0][0], plan, sampler, role)

    async def _until(self, prompt: Prompt, plan: Plan, sampler: Sampler, role: dict[str, Any]) -> list[Trajectory]:
        """A round that ends at its quorum or by its rule; with `batch` before the rest is started at all."""
        found: list[Trajectory] = []
        if plan.batch:
            while len(found) < plan.width and not self._enough(found, plan):
                batch = await sampler.sample(prompt, min(plan.batch, plan.width - len(found)), **role)
                found = await self._classified([*found, *batch])
            return found
        async with sampler.stream(prompt, plan.width, **role) as arrivals:
            async for trajectory in arrivals:
                found = await self._classified([*found, trajectory])
                if self._enough(found, plan):
                    break
        return await self._classified(sorted(found, key=lambda trajectory: trajectory.index))

    def _enough(self, found: list[Trajectory], plan: Plan) -> bool:
        usable = sum(trajectory.error is None for trajectory in found)
        if plan.quorum is not None and usable >= plan.quorum:
            return True
        return plan.stop is not None and plan.stop([trajectory.answer_class for trajectory in found])

    async def _classified(self, trajectories: list[Trajectory]) -> list[Trajectory]:
        return await classified(trajectories, self.grader) if self.grader and self._compares else trajectories

    async def _compact(
        self, problem: Problem, trajectories: list[Trajectory], sampler: Sampler, *, last: bool
    ) -> tuple[Message, ...]:
        if not isinstance(self.compaction, AskingCompaction):
            return self.compaction(trajectories)
        return () if last else await self.compaction.compact(problem, trajectories, sampler)


def sequential(*, n: int, prompt: PromptBuilder, order: Order, compaction: Compaction) -> PaCoRe:
    """n trajectories in a row, each with the one before as its reference: schedule [1] * (n - 1) and the last."""
    require_count("strategy.n", n)
    return PaCoRe(schedule=Fixed(widths=[1] * (n - 1)), prompt=prompt, order=order, compaction=compaction)
