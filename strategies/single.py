"""One sample: the baseline for everything else."""

from __future__ import annotations

from dataclasses import dataclass

from pacore_lab.interfaces import Sampler
from pacore_lab.types import Problem, Round, Solution


@dataclass(frozen=True, kw_only=True)
class Single:
    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        trajectories = await sampler.sample(problem.messages, 1)
        return Solution.of(trajectories[0], [Round.of(trajectories)])
