"""Best-of-N: the independent sample that a scorer rates highest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pacore_lab.errors import require_count, require_flag
from pacore_lab.interfaces import Grader, Sampler
from pacore_lab.types import Problem, Round, Solution
from strategies.election import classified, elected, require_comparable
from strategies.scorers import Scorer
from strategies.verdicts import none_presentable, presentable


@dataclass(frozen=True, kw_only=True)
class BestOfN:
    """The trajectory with the highest score among n, the first one if scores are equal.

    Failed, empty and unscorable trajectories never win; the scorer's reasons become notes.
    vote: weighted Best-of-N (arXiv 2408.03314, section 5.1): scores are summed over each class of answers that `grader`
    considers equal, and the class with the largest sum wins.
    """

    n: int
    scorer: Scorer
    vote: bool = False
    grader: Grader | None = None

    def __post_init__(self) -> None:
        require_count("strategy.n", self.n)
        require_flag("strategy.vote", self.vote)
        if self.vote:
            require_comparable(self.grader)

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        trajectories = await sampler.sample(problem.messages, self.n)
        rounds = [Round.of(trajectories)]
        candidates = presentable(trajectories)
        if not candidates:
            return none_presentable(trajectories, rounds)
        scores = await self.scorer(problem, candidates, sampler)
        notes = tuple(score.reason for score in scores if score.reason)
        scored = [(each, s.value) for each, s in zip(candidates, scores, strict=True) if s.value is not None]
        if not scored:
            reason = f"none of {len(candidates)} trajectories could be scored: {', '.join(dict.fromkeys(notes))}"
            return Solution(answers=(), rounds=tuple(rounds), reason=reason, notes=notes)
        if self.vote and self.grader:
            voters = await classified([each for each, _ in scored], self.grader)
            return replace(elected(voters, rounds, weights=[value for _, value in scored]), notes=notes)
        best, _ = max(scored, key=lambda pair: pair[1])
        return Solution(answers=(best,), rounds=tuple(rounds), notes=notes)
