"""Self-consistency (arXiv 2203.11171): k independent samples, vote over equivalence classes of their answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pacore_lab.errors import require_count
from pacore_lab.interfaces import Grader, Sampler
from pacore_lab.types import Problem, Round, Solution


@dataclass(frozen=True, kw_only=True)
class MajorityVote:
    """Invalid answers never win. A tie gives one trajectory of each tied class: the score is their mean."""

    k: int
    grader: Grader

    def __post_init__(self) -> None:
        require_count("strategy.k", self.k)

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        trajectories = await sampler.sample(problem.messages, self.k)
        rounds = (Round.of(trajectories),)
        classes = await self.grader.classes([self.grader.extract(trajectory) for trajectory in trajectories])
        votes = Counter(name for name in classes if name is not None)
        if not votes:
            return Solution(answers=(), rounds=rounds, reason=f"no valid answer among {self.k} trajectories")
        winners = [name for name, count in votes.items() if count == max(votes.values())]
        return Solution(answers=tuple(trajectories[classes.index(name)] for name in winners), rounds=rounds)
