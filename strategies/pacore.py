"""Parallel Coordinated Reasoning (arXiv 2601.05593, section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

from pacore_lab.errors import require_count
from pacore_lab.interfaces import Compaction, Order, PromptBuilder, Sampler, Schedule
from pacore_lab.types import Message, Problem, Round, Solution
from strategies.schedules import Fixed


@dataclass(frozen=True, kw_only=True)
class PaCoRe:
    """Rounds of w_r^(i) ~ pi(. | P(x, M_{r-1})), i = 1..K_r, and M_r = C(Omega_r), the last of width 1: the answer."""

    schedule: Schedule
    prompt: PromptBuilder
    order: Order
    compaction: Compaction

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        messages: tuple[Message, ...] = ()
        rounds: list[Round] = []
        while width := self.schedule(rounds):
            trajectories = self.order(await sampler.sample(self.prompt(problem, messages), width))
            messages = self.compaction(trajectories)
            rounds.append(Round.of(trajectories, messages))
            trajectories = trajectories[:1]  # the rest is stored: its text is not held while the next round runs
        return Solution.of(trajectories[0], rounds)


def sequential(*, n: int, prompt: PromptBuilder, order: Order, compaction: Compaction) -> PaCoRe:
    """n trajectories in a row, each with the one before as its reference: schedule [1] * (n - 1) and the last."""
    require_count("strategy.n", n)
    return PaCoRe(schedule=Fixed(widths=[1] * (n - 1)), prompt=prompt, order=order, compaction=compaction)
