"""Self-consistency (arXiv 2203.11171): k independent samples and a vote over equivalence classes of their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pacore_lab.errors import require_count, require_part
from pacore_lab.interfaces import Grader, Sampler
from pacore_lab.types import Problem, Round, Solution, Trajectory
from strategies.election import classified, elected, require_comparable
from strategies.weights import Heads

Weight: TypeAlias = Callable[[Trajectory], float]
"""How much a trajectory's vote counts, 0 or more (`strategies.weights`)."""


@dataclass(frozen=True, kw_only=True)
class MajorityVote:
    """Invalid answers never win, but their tokens count.

    weight: how much each trajectory's vote counts. ties: "expected" gives one trajectory of each tied class, and the
    score is their mean; "random" picks one of them, the same one each time (seeded by the trajectories' ids).
    Raises ValueError for arguments out of range and for a grader whose answers cannot be compared.
    """

    k: int
    grader: Grader
    weight: Weight = Heads()  # noqa: RUF009 - frozen
    ties: Literal["expected", "random"] = "expected"

    def __post_init__(self) -> None:
        require_count("strategy.k", self.k)
        require_part("strategy.weight", self.weight)
        if self.ties not in ("expected", "random"):
            raise ValueError(f"strategy.ties is {self.ties!r}; give expected or random")
        require_comparable(self.grader)

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        trajectories = await classified(await sampler.sample(problem.messages, self.k), self.grader)
        weights = [0.0 if voter.answer_class is None else self.weight(voter) for voter in trajectories]
        return elected(trajectories, [Round.of(trajectories)], weights=weights, ties=self.ties)
