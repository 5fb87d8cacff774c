"""One budget of trajectories for all problems of a run, spent where answers disagree (after arXiv 2410.04707)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pacore_lab.errors import require_count, require_names
from pacore_lab.interfaces import AnyCompaction, Grader, Order, Plan, PromptBuilder, Sampler
from pacore_lab.types import Problem, Round, Solution
from strategies.adaptive import disagreement
from strategies.election import classified, elected, require_comparable
from strategies.rounds import Ask, compacted, draw


@dataclass(frozen=True, kw_only=True)
class Allocated:
    """Each problem samples `first` trajectories; what remains of `mean` per problem is shared out by disagreement.

    If all `first` agree, their answer is final. Otherwise the further trajectories join the first round, and one
    trajectory is synthesized from all of them. The shares are known once every episode of the run has its first
    answers, so all episodes are in flight at once. roles: who explores and who synthesizes; () is the run's own model.
    """

    first: int
    mean: int
    prompt: PromptBuilder
    order: Order
    compaction: AnyCompaction
    grader: Grader
    roles: Sequence[str] = ()

    def __post_init__(self) -> None:
        require_count("strategy.first", self.first)
        require_count("strategy.mean", self.mean, self.first)
        require_comparable(self.grader)
        require_names("strategy.roles", self.roles)
        if self.roles and len(self.roles) != 2:
            raise ValueError(f"strategy.roles is {self.roles!r}; give two names, e.g. [explore, synthesize]")

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        explore, synthesize = self.roles or (None, None)
        asked = partial(Ask, prompt=problem.messages, role=explore)
        first = await draw([asked(n=self.first)], Plan(width=self.first), sampler, self.grader)
        trajectories = list(first.trajectories)
        weight = disagreement([trajectory.answer_class for trajectory in trajectories])
        further = await sampler.claim(weight, self.mean - self.first)
        if not weight:
            return elected(trajectories, [Round.of(trajectories)])
        if further:
            trajectories += (await draw([asked(n=further)], Plan(width=further), sampler)).trajectories
        shown = self.order(await classified(trajectories, self.grader))
        messages = await compacted(self.compaction, problem, shown, sampler)
        last = Ask(prompt=self.prompt(problem, messages), n=1, role=synthesize)
        (final,) = (await draw([last], Plan(width=1), sampler)).trajectories
        return Solution.of(final, [Round.of(shown, messages), Round.of([final])])
