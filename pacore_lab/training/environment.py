"""The synthesis environment (arXiv 2601.05593, section 2.2): draw (x, M), show P(x, M), reward the trajectory.

It knows no trainer. An episode is one trajectory of one round: `instance` gives its prompt, `reward` its grade.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

from pacore_lab.errors import require_count
from pacore_lab.interfaces import Grader, PromptBuilder
from pacore_lab.training.records import Record
from pacore_lab.types import Grade, Message, Problem, Prompt, Trajectory

_WORDS = re.compile(r"reference|参考|[Rr]ef\s*[0-9]+")


def cross_checks(text: str) -> int:
    """How many of the paper's Figure 5 words are in `text`: "reference", "参考", "Ref <number>", "ref <number>".

    The spelling is the paper's: "references" counts, "Reference" does not.
    """
    return len(_WORDS.findall(text))


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One (x, M): the problem, P(x, M), and the shown messages in order, with their scores."""

    record: str
    problem: Problem
    prompt: Prompt
    messages: tuple[Message, ...]
    scores: tuple[float | None, ...]

    @property
    def all_wrong(self) -> bool:
        """Whether messages are shown and all of them scored 0; an ungraded message is not known to be wrong."""
        return bool(self.scores) and all(score == 0 for score in self.scores)


@dataclass(frozen=True, kw_only=True)
class SynthesisEnvironment:
    """Draws instances from records and grades the trajectories made from them.

    prompt: the core's P(x, M), the same as in inference. graders: by domain, for the domains of the records; the code
    grader's own score must be the share of tests passed.
    |M| is uniform in [m_min, m_max]. The paper's recipe is 16 to 24 of 24, its ablation's best 8 to 16. 0 to 0 is the
    control: the bare problem.
    Raises ValueError for bounds out of order, pools that are too small, and a domain without a grader.
    """

    records: Sequence[Record]
    prompt: PromptBuilder
    graders: Mapping[str, Grader]
    m_min: int
    m_max: int
    seed: int = 0

    def __post_init__(self) -> None:
        require_count("m_min", self.m_min, least=0)
        require_count("m_max", self.m_max, least=self.m_min)
        if not self.records:
            raise ValueError("records is empty; there is nothing to train on")
        for record in self.records:
            if len(record.responses) < self.m_max:
                raise ValueError(
                    f"m_max is {self.m_max}, but record {record.id!r} has {len(record.responses)} messages; "
                    "lower m_max or make larger pools"
                )
            if record.domain not in self.graders:
                raise ValueError(f"record {record.id!r} is {record.domain}; give graders[{record.domain!r}]")

    def instance(self, number: int) -> Instance:
        """The instance with this number, from 0 on; with batches of B, slot s of step t is t * B + s.

        Each epoch goes through the records once, in its own order, and every instance draws its messages afresh. All
        of it follows from (seed, number), so a resumed training sees what it would have seen.
        """
        epoch, place = divmod(number, len(self.records))
        record = self.records[_order(self.seed, epoch, len(self.records))[place]]
        draw = random.Random(f"messages:{self.seed}:{number}")
        count = draw.randint(self.m_min, self.m_max)
        shown = draw.sample(range(len(record.responses)), count)
        messages = tuple(Message(text=record.responses[i], sources=(f"{record.id}:{i}",)) for i in shown)
        return Instance(
            record=record.id,
            problem=record.problem,
            prompt=self.prompt(record.problem, messages),
            messages=messages,
            scores=tuple(record.scores[i] for i in shown),
        )

    async def reward(self, instance: Instance, trajectory: Trajectory) -> Grade:
        """The core grader's grade of a trajectory; the grader sees the bare problem and no messages.

        The score is the reward, in [0, 1]. None means ungraded, hence no reward: leave such a trajectory out.
        """
        domain = "code" if instance.problem.reference else "math"
        return await self.graders[domain].grade(instance.problem, trajectory)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts for the log, which add up over batches, steps and windows; rates are computed at the end.

    responses, graded: how many. reward: the sum over the graded ones.
    all_wrong: graded responses to instances whose messages all scored 0. emergent: those of them with a score of 1.
    cross_checks: words in whole responses, thinking included. concluding: words in their conclusions alone (the paper
    does not say which it counts).
    """

    responses: int = 0
    graded: int = 0
    reward: float = 0.0
    all_wrong: int = 0
    emergent: int = 0
    cross_checks: int = 0
    concluding: int = 0

    @classmethod
    def of(cls, instance: Instance, trajectory: Trajectory, grade: Grade) -> Counts:
        thinking = "" if trajectory.error else trajectory.completion.reasoning
        all_wrong = grade.score is not None and instance.all_wrong
        return cls(
            responses=1,
            graded=int(grade.score is not None),
            reward=grade.score or 0.0,
            all_wrong=int(all_wrong),
            emergent=int(all_wrong and grade.score == 1),
            cross_checks=cross_checks(thinking) + cross_checks(trajectory.content),
            concluding=cross_checks(trajectory.conclusion),
        )

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    @property
    def emergent_rate(self) -> float | None:
        """P(correct | every message wrong), as on the right of the paper's Figure 5; None if that never occurred."""
        return self.emergent / self.all_wrong if self.all_wrong else None


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, size: int) -> list[int]:
    return random.Random(f"order:{seed}:{epoch}").sample(range(size), size)
