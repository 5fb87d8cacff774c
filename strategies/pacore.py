"""Parallel Coordinated Reasoning (arXiv 2601.05593, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import groupby

from pacore_lab.errors import require_count, require_flag, require_names, require_part
from pacore_lab.interfaces import AnyCompaction, Grader, Order, Plan, PromptBuilder, Sampler, Schedule, Views, needs_of
from pacore_lab.types import Message, Problem, Round, Solution, Trajectory
from strategies.compaction import Conclusion
from strategies.election import require_comparable
from strategies.orders import Published
from strategies.prompts import Template
from strategies.rounds import Ask, Draws, answer, compacted, draw, spent
from strategies.schedules import Fixed
from strategies.views import All


@dataclass(frozen=True)
class PaCoRe:
    """Rounds of w_r^(i) ~ pi(. | P(x, M_{r-1})), i = 1..K_r, and M_r = C(Omega_r); the last round answers.

    The defaults are the published design.
    schedule: a `Schedule`, or a list of widths such as [32, 4], after which a last round of one trajectory follows.
    views: which messages each trajectory is shown; in the paper, all of them.
    grader: compares answers, for the parts that need it and for the vote if the last round has several trajectories.
    roles: who samples the first round, the second, ...; the last role also samples all further rounds. Without roles,
    the run's model samples. A list in place of one role takes turns, as in the layers of a Mixture-of-Agents.
    accumulate: show the messages of all rounds so far, the oldest first; in the paper, only the last round's.
    Raises ValueError for parts that do not fit together.
    """

    schedule: Schedule | list[int] | tuple[int, ...]
    _: KW_ONLY
    prompt: PromptBuilder = Template()  # noqa: RUF009 - frozen
    order: Order = Published()  # noqa: RUF009
    compaction: AnyCompaction = Conclusion()  # noqa: RUF009
    views: Views = All()  # noqa: RUF009
    grader: Grader | None = None
    roles: Sequence[str | Sequence[str]] = ()
    accumulate: bool = False

    def __post_init__(self) -> None:
        require_part("strategy.schedule", self._schedule)
        require_flag("strategy.accumulate", self.accumulate)
        if isinstance(self.roles, str) or not isinstance(self.roles, Sequence):
            require_names("strategy.roles", self.roles)
        for names in self.roles:
            require_names("strategy.roles", [names] if isinstance(names, str) else names, least=1)
        if "answers" in needs_of(self):
            require_comparable(self.grader)
        several = not isinstance(self.views, All) or any(not isinstance(names, str) for names in self.roles)
        if several and "partial" in needs_of(self.schedule):
            raise ValueError(
                "strategy.schedule aborts trajectories, and a round that may be aborted asks one role with one prompt; "
                "use strategy/views=all and one name per round in strategy.roles, or another strategy/schedule"
            )

    @cached_property
    def _schedule(self) -> Schedule:
        return Fixed(widths=self.schedule) if isinstance(self.schedule, (list, tuple)) else self.schedule

    @cached_property
    def _comparing(self) -> Grader | None:
        return self.grader if "answers" in needs_of(self) else None

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        messages: tuple[Message, ...] = ()
        rounds: list[Round] = []
        drawn, shown = Draws(), list[Trajectory]()
        while plan := self._schedule(rounds):
            asks = self._asks(problem, messages, plan, len(rounds))
            before, drawn, shown = spent(sampler), Draws(), []  # the previous round's text is stored: free it
            drawn = await draw(asks, plan, sampler, self._comparing)  # (1)
            shown = self.order(drawn.trajectories)
            rounds.append(drawn.round(shown, tokens=spent(sampler) - before))
            last = self._schedule(rounds) is None
            latest = await compacted(self.compaction, problem, shown, sampler, last=last)  # (2)
            messages = (*messages, *latest) if self.accumulate else latest
            rounds[-1] = drawn.round(shown, messages, tokens=spent(sampler) - before)
            if last:
                break
        return await answer(shown, rounds, self.grader)  # (3)

    def _asks(self, problem: Problem, messages: tuple[Message, ...], plan: Plan, finished: int) -> list[Ask]:
        """One `Ask` for each run of adjacent trajectories with the same view and role."""
        asked = self.roles[min(finished, len(self.roles) - 1)] if self.roles else None
        names = [asked] if asked is None or isinstance(asked, str) else asked
        places = [(view, names[i % len(names)]) for i, view in enumerate(self.views(messages, plan.width))]
        return [
            Ask(prompt=self.prompt(problem, view), n=len(list(same)), role=role)
            for (view, role), same in groupby(places)
        ]


def sequential(
    *,
    n: int,
    prompt: PromptBuilder,
    order: Order,
    compaction: AnyCompaction,
    grader: Grader | None = None,
    roles: Sequence[str] = (),
) -> PaCoRe:
    """n trajectories in a row, each shown the previous one as its reference: widths [1] * (n - 1), and the last."""
    require_count("strategy.n", n)
    return PaCoRe([1] * (n - 1), prompt=prompt, order=order, compaction=compaction, grader=grader, roles=roles)
