"""The answers of trajectories, their equivalence classes, and the vote over them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pacore_lab.interfaces import Grader
from pacore_lab.types import Round, Solution, Trajectory
from pacore_lab.votes import winners


async def classified(trajectories: Sequence[Trajectory], grader: Grader) -> list[Trajectory]:
    """The same trajectories with `answer` and `answer_class` set; classes are numbered by first appearance."""
    known = [trajectory.answer for trajectory in trajectories]
    answers = [answer or grader.extract(each) for each, answer in zip(trajectories, known, strict=True)]
    classes = await grader.classes(answers)
    return [
        trajectory
        if (trajectory.answer, trajectory.answer_class) == (answer, name)  # already known from a shorter list
        else replace(trajectory, answer=answer, answer_class=name)
        for trajectory, answer, name in zip(trajectories, answers, classes, strict=True)
    ]


def elected(
    trajectories: Sequence[Trajectory],
    rounds: Sequence[Round],
    *,
    weights: Sequence[float] | None = None,
    ties: Literal["expected", "random"] = "expected",
) -> Solution:
    """The vote over classified trajectories: one trajectory of the winning class, or of each that ties.

    weights: one per vote, 0 or more; None counts heads. ties: "expected" keeps all (the score is their mean), "random"
    picks one, seeded by the trajectories' ids. Without a valid answer the solution is empty and gives the reason.
    """
    best = winners([trajectory.answer_class for trajectory in trajectories], weights)
    if not best:
        reason = f"no valid answer among {len(trajectories)} trajectories"
        return Solution(answers=(), rounds=tuple(rounds), reason=reason)
    if ties == "random":
        best = [random.Random("".join(trajectory.id for trajectory in trajectories)).choice(best)]
    return Solution(answers=tuple(trajectories[place] for place in best), rounds=tuple(rounds))


def require_comparable(grader: Grader | None, key: str = "strategy.grader") -> None:
    """Raises ValueError if there is no grader, or if its answers cannot be compared."""
    if grader is None:
        raise ValueError(f"{key} is null, and a part of this strategy compares answers; set {key}=${{grader}}")
    if not getattr(grader, "comparable", True):
        raise ValueError(
            f"a vote needs answers that can be compared, and {type(grader).__name__} compares none; "
            "name another grader="
        )
