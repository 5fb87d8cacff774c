"""Which of its messages a synthesis agrees with, by their place in the list and by how many messages share an answer.

A synthesis is a trajectory that was shown messages. Agreement is not yet copying: a model may find an answer again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pacore_lab.analysis.intervals import accuracy_interval, difference_interval
from pacore_lab.analysis.methods import Line, Overlap
from pacore_lab.interfaces import Grader
from pacore_lab.results.line import trajectories_of
from pacore_lab.types import Completion, Trajectory
from pacore_lab.votes import winners

QUARTERS = 4
"""How many parts the list of messages is divided into where its length varies."""
KINDS = ("most messages'", "tied with another", "fewer messages'", "new", "no answer", "all messages wrong")


@dataclass(frozen=True, kw_only=True, slots=True)
class Synthesis:
    """A trajectory that was shown messages. Answers are equivalence classes within its round, None for no answer.

    place: the number of rounds before it, 1 for a trajectory of the second round. shown: the messages' answers, in
    order. sources: the ids of the trajectories the messages were made from. wrong: every source was graded 0.
    score: the grade of a final answer; None if it is ungraded, or from a round before the last.
    """

    problem: str
    repeat: int
    place: int
    sources: tuple[str, ...]
    shown: tuple[int | None, ...]
    answer: int | None
    wrong: bool
    score: float | None

    @property
    def agrees(self) -> tuple[bool, ...]:
        """For each message, whether the synthesis has the message's answer."""
        return tuple(self.answer is not None and answer == self.answer for answer in self.shown)

    @property
    def kind(self) -> str:
        """One of `KINDS`, except the last."""
        if self.answer is None:
            return "no answer"
        if not any(self.agrees):
            return "new"
        best = [self.shown[place] for place in winners(self.shown)]
        return "fewer messages'" if self.answer not in best else KINDS[len(best) > 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean over problems of the means over their syntheses, with its 95 % interval over problems."""

    mean: float
    low: float
    high: float
    problems: int
    syntheses: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """lead: P(answer = this message's answer) minus expected, the mean over all messages of the same syntheses."""

    name: str
    expected: float
    lead: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """share: of all syntheses. score: of the graded final answers among them, None if there are none."""

    name: str
    share: Estimate
    score: Estimate | None


def shown_in(line: Line) -> Iterator[tuple[int, Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]]:
    """Place, shown messages and trajectories of each round that was shown messages, without failed trajectories.

    Messages (texts and sources) and trajectories (facts) are as results.jsonl has them.
    """
    if line["error"] is not None:
        return
    for place, (shown, facts) in enumerate(zip(line["messages"], line["trajectories"][1:], strict=False), start=1):
        usable = [fact for fact in facts if fact["error"] is None]
        if shown and usable:
            yield place, shown, usable


async def syntheses(lines: Iterable[Line], grader: Grader) -> list[Synthesis]:
    """The syntheses of all lines. A message from one trajectory has its answer, any other the answer in its text."""
    found = []
    for line in lines:
        trajectories = trajectories_of(line)
        scores = {sample["id"]: sample["score"] for sample in line["samples"]}
        for place, shown, facts in shown_in(line):
            answers = [grader.extract(_source(message, trajectories)) for message in shown]
            answers += [grader.extract(trajectories[fact["id"]]) for fact in facts]
            classes = await grader.classes(answers)
            graded = [scores.get(name) for message in shown for name in message["sources"]]
            for fact, answer in zip(facts, classes[len(shown) :], strict=True):
                found.append(
                    Synthesis(
                        problem=line["request_id"],
                        repeat=line["repeat"],
                        place=place,
                        sources=tuple(name for message in shown for name in message["sources"]),
                        shown=tuple(classes[: len(shown)]),
                        answer=answer,
                        wrong=bool(graded) and all(score == 0 for score in graded),
                        score=line["grade"]["score"] if line["answers"] == [fact["id"]] else None,
                    )
                )
    return found


def by_index(found: Sequence[Synthesis]) -> list[Position]:
    """Positions by place in the list, for syntheses that were shown equally many messages."""
    count = len(found[0].shown)
    assert all(len(each.shown) == count for each in found)
    return [_position(f"{place + 1}", found, [(place, place + 1)] * len(found)) for place in range(count)]


def by_quarter(found: Sequence[Synthesis]) -> list[Position]:
    """Positions by quarter of the list, for syntheses that were shown at least four messages each."""
    positions = []
    for quarter in range(QUARTERS):
        bounds = [
            (math.ceil(len(each.shown) * quarter / QUARTERS), math.ceil(len(each.shown) * (quarter + 1) / QUARTERS))
            for each in found
        ]
        positions.append(_position(f"{quarter + 1}/{QUARTERS}", found, bounds))
    return positions


def _position(name: str, found: Sequence[Synthesis], bounds: Sequence[tuple[int, int]]) -> Position:
    leads: dict[str, list[float]] = {}
    usual: dict[str, list[float]] = {}
    for each, (start, stop) in zip(found, bounds, strict=True):
        expected = _mean(each.agrees)
        leads.setdefault(each.problem, []).append(_mean(each.agrees[start:stop]) - expected)
        usual.setdefault(each.problem, []).append(expected)
    means = [_mean(values) for values in leads.values()]
    square = _mean([_mean([lead**2 for lead in values]) for values in leads.values()])
    low, high = difference_interval(means, worth(found), square)
    lead = Estimate(mean=_mean(means), low=low, high=high, problems=len(means), syntheses=len(found))
    return Position(name=name, expected=_mean([_mean(values) for values in usual.values()]), lead=lead)


def kinds(found: Sequence[Synthesis]) -> list[Kind]:
    """The `KINDS` that occur. The last is not a kind of answer: its score is the rate of emergent correctness."""
    rows = []
    for name in KINDS:
        chosen = [each.wrong if name == KINDS[-1] else each.kind == name for each in found]
        if any(chosen):
            graded = [each for each, of_it in zip(found, chosen, strict=True) if of_it and each.score is not None]
            score = _estimate(graded, [each.score or 0.0 for each in graded]) if graded else None
            rows.append(Kind(name=name, share=_estimate(found, chosen), score=score))
    return rows


def _estimate(found: Sequence[Synthesis], values: Sequence[float]) -> Estimate:
    by_problem: dict[str, list[float]] = {}
    for each, value in zip(found, values, strict=True):
        by_problem.setdefault(each.problem, []).append(value)
    means = [_mean(group) for group in by_problem.values()]
    low, high = accuracy_interval(means, worth(found))
    return Estimate(mean=_mean(means), low=low, high=high, problems=len(means), syntheses=len(found))


def worth(found: Sequence[Synthesis]) -> float:
    """An upper bound on the independent syntheses per problem.

    Syntheses that were shown the same messages count as one, and as less if episodes drew their messages from one pool
    (`Overlap`).
    """
    lists = {(each.problem, each.repeat, each.place): each.sources for each in found}
    overlap = Overlap()
    for sources in lists.values():
        overlap.add(sources)
    return max(1.0, len(lists) / len({each.problem for each in found}) * overlap.independence)


def widths(found: Sequence[Synthesis]) -> Counter[int]:
    """How many syntheses were shown each number of messages."""
    return Counter(len(each.shown) for each in found)


def _source(message: Mapping[str, Any], trajectories: Mapping[str, Trajectory]) -> Trajectory:
    known = [trajectories[name] for name in message["sources"] if name in trajectories]
    if len(message["sources"]) == len(known) == 1:
        return known[0]
    return Trajectory(id="message", index=0, completion=Completion(content=message["text"]))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
