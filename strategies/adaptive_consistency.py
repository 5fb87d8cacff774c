"""Self-consistency that stops when its answers agree enough (arXiv 2305.11860, 2401.10480)."""

from __future__ import annotations

from dataclasses import dataclass

from pacore_lab.errors import require_count, require_flag, require_part
from pacore_lab.interfaces import Grader, Sampler, StopRule
from pacore_lab.types import Problem, Round, Solution, Trajectory
from strategies.election import classified, elected, require_comparable


@dataclass(frozen=True, kw_only=True)
class AdaptiveVote:
    """Samples `batch` trajectories at a time until `rule` says stop or there are `most`, then takes a vote over all.

    Nothing is aborted, but each batch has to be waited for. Adaptive consistency is batch=1 with a Beta or Dirichlet
    rule; early-stopping self-consistency is batch=5 with a Unanimous rule of window 5.
    by_last: after the rule says stop, only the last batch votes. The unanimous window then decides, whatever the
    windows before it said, as in the code of early-stopping self-consistency.
    Raises ValueError for arguments out of range and for a grader whose answers cannot be compared.
    """

    most: int
    batch: int
    rule: StopRule
    grader: Grader
    by_last: bool = False
    needs = frozenset({"answers"})

    def __post_init__(self) -> None:
        require_count("strategy.most", self.most)
        require_count("strategy.batch", self.batch)
        require_part("strategy.rule", self.rule)
        require_flag("strategy.by_last", self.by_last)
        require_comparable(self.grader)

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        found: list[Trajectory] = []
        stopped = False
        while len(found) < self.most and not stopped:
            batch = await sampler.sample(problem.messages, min(self.batch, self.most - len(found)))
            found = await classified([*found, *batch], self.grader)
            stopped = self.rule([trajectory.answer_class for trajectory in found])
        voters = found[-len(batch) :] if stopped and self.by_last else found
        return elected(voters, [Round.of(found)])
