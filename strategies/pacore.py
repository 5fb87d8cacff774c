"""Parallel Coordinated Reasoning (arXiv 2601.05593, section 2.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

from pacore_lab.errors import require_count, require_flag, require_names, require_part
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
from strategies.election import classified, elected, require_comparable
from strategies.schedules import Fixed
from strategies.views import All


@dataclass(frozen=True, kw_only=True)
class PaCoRe:
    """Rounds of w_r^(i) ~ pi(. | P(x, M_{r-1})), i = 1..K_r, and M_r = C(Omega_r), the last of width 1: the answer.

    views: which of the messages each trajectory is shown, all of them in the paper. grader: compares answers, for parts
    that need that, and for a vote where a schedule ends with a round of several. roles: who samples the first round,
    the second, ...; the last one all further rounds; none: the run's model. A list of names in place of one: the
    round's trajectories are asked of them in turn, as the layers of a Mixture-of-Agents are.
    accumulate: show the messages of all rounds so far, the oldest first; in the paper, those of the last one.
    Raises ValueError for parts that do not go together.
    """

    schedule: Schedule
    prompt: PromptBuilder
    order: Order
    compaction: Compaction | AskingCompaction
    views: Views = All()  # noqa: RUF009 - frozen
    grader: Grader | None = None
    roles: Sequence[str | Sequence[str]] = ()
    accumulate: bool = False

    def __post_init__(self) -> None:
        require_part("strategy.schedule", self.schedule)
        require_flag("strategy.accumulate", self.accumulate)
        if isinstance(self.roles, str) or not isinstance(self.roles, Sequence):
            require_names("strategy.roles", self.roles)
        for names in self.roles:
            require_names("strategy.roles", [names] if isinstance(names, str) else names, least=1)
        if "answers" in self._needs:
            require_comparable(self.grader)
        several = not isinstance(self.views, All) or any(not isinstance(names, str) for names in self.roles)
        if several and "partial" in needs_of(self.schedule):
            raise ValueError(
                "strategy.schedule aborts trajectories, and a round of which some are aborted asks one role with one "
                "prompt; use strategy/views=all and one name per round in strategy.roles, or another strategy/schedule"
            )

    @cached_property
    def _needs(self) -> frozenset[str]:
        return needs_of(self)

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        messages: tuple[Message, ...] = ()
        rounds: list[Round] = []
        plan = _plan(self.schedule(rounds))
        while plan:
            trajectories: list[Trajectory] = []  # the last round is stored: its text is not held while this one runs
            before = self._spent(sampler)
            trajectories, done = await self._round(problem, messages, plan, sampler, len(rounds))
            rounds.append(self._charged(done, sampler, before))
            plan = _plan(self.schedule(rounds))
            latest = await self._compact(problem, trajectories, sampler, last=plan is None)
            messages = (*messages, *latest) if self.accumulate else latest
            rounds[-1] = self._charged(replace(rounds[-1], messages=messages), sampler, before)
        if len(trajectories) == 1:
            return Solution.of(trajectories[0], rounds)
        if self.grader is None:
            raise ValueError("strategy.schedule ends with a round of several, which takes a vote; set strategy.grader")
        return elected(await classified(trajectories, self.grader), rounds)

    def _spent(self, sampler: Sampler) -> int:
        return sampler.spent if "tokens" in self._needs else 0

    def _charged(self, done: Round, sampler: Sampler, before: int) -> Round:
        return replace(done, tokens=sampler.spent - before) if "tokens" in self._needs else done

    async def _round(
        self, problem: Problem, messages: tuple[Message, ...], plan: Plan, sampler: Sampler, finished: int
    ) -> tuple[list[Trajectory], Round]:
        """A round's trajectories in message order, and the round without its messages."""
        drawn, stopped = await self._sample(problem, messages, plan, sampler, finished)
        trajectories = self.order(drawn)
        return trajectories, replace(Round.of(trajectories), classes=Round.of(drawn).classes, stopped=stopped)

    async def _sample(
        self, problem: Problem, messages: tuple[Message, ...], plan: Plan, sampler: Sampler, finished: int
    ) -> tuple[list[Trajectory], bool]:
        """A round's trajectories in the order in which they were drawn, and whether the plan's stop rule ended it."""
        asked = self.roles[min(finished, len(self.roles) - 1)] if self.roles else None
        names = [asked] if asked is None or isinstance(asked, str) else asked
        views = self.views(messages, plan.width)
        shown = groupby((view, names[place % len(names)]) for place, view in enumerate(views))
        prompts = [(self.prompt(problem, view), len(list(same)), name) for (view, name), same in shown]
        if plan == Plan(width=plan.width):
            calls = [sampler.sample(prompt, count, **_role(name)) for prompt, count, name in prompts]
            found = [each for found in await asyncio.gather(*calls) for each in found]
            return await self._classified(found), False
        if len(prompts) > 1:
            raise ValueError("a round that may end early asks one role with one prompt; use strategy/views=all")
        return await self._until(prompts[0][0], plan, sampler, _role(prompts[0][2]))

    async def _until(
        self, prompt: Prompt, plan: Plan, sampler: Sampler, role: dict[str, Any]
    ) -> tuple[list[Trajectory], bool]:
        """A round that ends at its quorum or by its rule; with `batch` before the rest is started at all."""
        found: list[Trajectory] = []
        if plan.batch:
            while len(found) < plan.width and not self._enough(found, plan):
                batch = await sampler.sample(prompt, min(plan.batch, plan.width - len(found)), **role)
                found = await self._classified([*found, *batch])
            return found, _stopped(found, plan)
        async with sampler.stream(prompt, plan.width, **role) as arrivals:
            async for trajectory in arrivals:
                found = await self._classified([*found, trajectory])
                if self._enough(found, plan):
                    break
        stopped = _stopped(found, plan)
        return await self._classified(sorted(found, key=lambda trajectory: trajectory.index)), stopped

    def _enough(self, found: list[Trajectory], plan: Plan) -> bool:
        usable = sum(trajectory.error is None for trajectory in found)
        return (plan.quorum is not None and usable >= plan.quorum) or _stopped(found, plan)

    async def _classified(self, trajectories: list[Trajectory]) -> list[Trajectory]:
        if self.grader is None or "answers" not in self._needs:
            return trajectories
        return await classified(trajectories, self.grader)

    async def _compact(
        self, problem: Problem, trajectories: list[Trajectory], sampler: Sampler, *, last: bool
    ) -> tuple[Message, ...]:
        if last and isinstance(self.compaction, AskingCompaction):
            return ()  # nobody would read it, and its tokens would be charged
        return await compacted(self.compaction, problem, trajectories, sampler)


async def compacted(
    compaction: Compaction | AskingCompaction, problem: Problem, trajectories: Sequence[Trajectory], sampler: Sampler
) -> tuple[Message, ...]:
    """The messages of a round, by either kind of compaction."""
    if isinstance(compaction, AskingCompaction):
        return await compaction.compact(problem, trajectories, sampler)
    return compaction(trajectories)


def _plan(plan: int | Plan | None) -> Plan | None:
    return Plan(width=plan) if isinstance(plan, int) else plan


def _stopped(found: Sequence[Trajectory], plan: Plan) -> bool:
    return plan.stop is not None and plan.stop([trajectory.answer_class for trajectory in found])


def _role(name: str | None) -> dict[str, Any]:
    return {} if name is None else {"role": name}


def sequential(
    *,
    n: int,
    prompt: PromptBuilder,
    order: Order,
    compaction: Compaction | AskingCompaction,
    grader: Grader | None = None,
    roles: Sequence[str] = (),
) -> PaCoRe:
    """n trajectories in a row, each with the one before as its reference: schedule [1] * (n - 1) and the last."""
    require_count("strategy.n", n)
    schedule = Fixed(widths=[1] * (n - 1))
    return PaCoRe(schedule=schedule, prompt=prompt, order=order, compaction=compaction, grader=grader, roles=roles)
