"""short-m@k (arXiv 2505.17813, the section of that name): the first m of k trajectories to finish vote."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pacore_lab.errors import require_count
from pacore_lab.interfaces import Grader, Sampler
from pacore_lab.types import Problem, Round, Solution, Trajectory
from strategies.election import classified, elected, require_comparable


@dataclass(frozen=True, kw_only=True)
class ShortMAtK:
    """Starts k trajectories; when m are done, the rest are aborted and those m vote.

    A tie goes to the answer with the shortest trajectory (in the paper, with the shortest thinking). A failed or
    truncated trajectory is not done: it is skipped and has no vote.
    Raises ValueError for arguments out of range and for a grader whose answers cannot be compared.
    """

    k: int
    m: int
    grader: Grader
    needs = frozenset({"partial", "answers"})

    def __post_init__(self) -> None:
        require_count("strategy.k", self.k)
        require_count("strategy.m", self.m)
        if self.m > self.k:
            raise ValueError(f"strategy.m is {self.m} of strategy.k={self.k}; give at most k")
        require_comparable(self.grader)

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        found: list[Trajectory] = []
        async with sampler.stream(problem.messages, self.k) as arrivals:
            async for trajectory in arrivals:
                found.append(trajectory)
                if sum(_done(each) for each in found) == self.m:
                    break
        found = await classified(sorted(found, key=lambda each: each.index), self.grader)
        voters = sorted(filter(_done, found), key=lambda each: each.completion.generated_tokens)
        solution = elected(voters, [Round.of(found)])
        return replace(solution, answers=solution.answers[:1])  # tied classes come in the order of the voters


def _done(trajectory: Trajectory) -> bool:
    return trajectory.error is None and not trajectory.truncated
