"""Mixture-of-Agents (arXiv 2406.04692, section 2): layers of several models that see the last layer's responses.

One model with several samples per layer (Self-MoA, 2502.00674) is PaCoRe with another prompt: strategy=self_moa.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.errors import require_count
from pacore_lab.interfaces import Compaction, PromptBuilder, Sampler
from pacore_lab.types import Message, Problem, Round, Solution


@dataclass(frozen=True, kw_only=True)
class MoA:
    """`layers` - 1 layers with one response of each proposer, then one of the aggregator.

    roles: the proposers, in the order in which their responses are shown; each may have a model of its own.
    role: the aggregator. layers: the last one included (3 in the paper, 2 in its MoA-Lite). The response of a failed
    proposer is left out.
    """

    prompt: PromptBuilder
    compaction: Compaction
    roles: Sequence[str]
    role: str = "aggregate"
    layers: int = 3

    def __post_init__(self) -> None:
        if not self.roles or isinstance(self.roles, str):
            raise ValueError(f"strategy.roles is {self.roles!r}; give a list of proposers' names, e.g. [a, b, c]")
        require_count("strategy.layers", self.layers, least=2)

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        messages: tuple[Message, ...] = ()
        rounds: list[Round] = []
        for _ in range(self.layers - 1):
            prompt = self.prompt(problem, messages)
            answered = await asyncio.gather(*[sampler.sample(prompt, 1, role=role) for role in self.roles])
            trajectories = [trajectory for each in answered for trajectory in each]
            messages = self.compaction(trajectories)
            rounds.append(Round.of(trajectories, messages))
        last = await sampler.sample(self.prompt(problem, messages), 1, role=self.role)
        return Solution.of(last[0], [*rounds, Round.of(last)])
