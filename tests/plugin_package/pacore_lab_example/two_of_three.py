"""The smallest vote that stops early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.interfaces import Grader, Sampler
from pacore_lab.types import Problem, Round, Solution, Trajectory
from pacore_lab.votes import winners


@dataclass(frozen=True, kw_only=True)
class TwoOfThree:
    """A majority vote over three samples; the third is drawn only where the first two disagree.

    Early-stopping self-consistency (arXiv 2401.10480) with a window of two and three samples at most. Two equal answers
    are a majority of three already, so the answer is always that of `majority_vote` with k=3.
    Raises ValueError for a grader whose answers cannot be compared.
    """

    grader: Grader

    def __post_init__(self) -> None:
        if not getattr(self.grader, "comparable", True):
            raise ValueError("strategy=two_of_three votes, and this grader compares no answers; name another grader=")

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        seen = await sampler.sample(problem.messages, 2)
        classes = await self._classes(seen)
        if classes[0] is None or classes[0] != classes[1]:
            seen = [*seen, *await sampler.sample(problem.messages, 1)]
            classes = await self._classes(seen)
        best = winners(classes)
        reason = "" if best else f"no valid answer among {len(seen)} trajectories"
        return Solution(answers=tuple(seen[place] for place in best), rounds=(Round.of(seen),), reason=reason)

    async def _classes(self, trajectories: Sequence[Trajectory]) -> list[int | None]:
        return await self.grader.classes([self.grader.extract(trajectory) for trajectory in trajectories])
