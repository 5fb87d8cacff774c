"""Votes that end early, against examples worked by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pacore_lab.errors import RequestError
from pacore_lab.grading import NoGrader
from pacore_lab.interfaces import Request, StopRule
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.types import Completion, Problem, Solution
from strategies.adaptive_consistency import AdaptiveVote
from strategies.short_m_at_k import ShortMAtK
from strategies.stopping import Beta, Unanimous
from tests.doubles import Reply, Scripted, dispatcher, episode, user

PROBLEM = Problem(id="p", messages=user("2 + 2?"), answer="4")
GRADER = NoGrader()


async def solve(
    strategy: AdaptiveVote | ShortMAtK, reply: Reply, path: Path
) -> tuple[Solution, Scripted, EpisodeSampler]:
    backend = Scripted(reply)
    async with dispatcher(backend, path) as dispatch:
        sampler = episode(dispatch)
        return await strategy.solve(PROBLEM, sampler), backend, sampler


def said(answers: str) -> Reply:
    """One letter for each answer; a space for none."""
    return lambda request, n: f"\\boxed{{{answers[n]}}}" if answers[n] != " " else "no box"


def vote(rule: StopRule, most: int = 40, batch: int = 1) -> AdaptiveVote:
    return AdaptiveVote(most=most, batch=batch, rule=rule, grader=GRADER)


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ("aaaa", 4),  # 1 - 0.5^5 = 0.969
        ("a aaa", 5),
        ("abaaaaa", 7),  # 5 : 1 is 0.9375, 6 : 1 is 0.965
    ],
)
async def test_adaptive_consistency_stops_when_the_vote_is_decided(answers: str, asked: int, tmp_path: Path) -> None:
    solution, backend, _ = await solve(vote(Beta()), said(answers.ljust(40, "b")), tmp_path)
    assert len(backend.requests) == asked == len(solution.rounds[0].trajectories)
    assert [answer.content for answer in solution.answers] == ["\\boxed{a}"]


async def test_samples_one_at_a_time_wait_for_one_another(tmp_path: Path) -> None:
    _, _, sampler = await solve(vote(Beta()), said("a" * 40), tmp_path)
    assert sampler.account.critical_path == sampler.account.ttc == 4 * len("\\boxed{a}")


async def test_an_undecided_vote_ends_at_the_most(tmp_path: Path) -> None:
    solution, backend, _ = await solve(vote(Beta(), most=5, batch=2), said("abab "), tmp_path)
    assert len(backend.requests) == 5
    assert [answer.index for answer in solution.answers] == [0, 1]
    none, _, _ = await solve(vote(Beta(), most=3), said("   "), tmp_path / "none")
    assert (none.answers, none.reason) == ((), "no valid answer among 3 trajectories")


@pytest.mark.parametrize(
    ("answers", "by_last", "elected"),
    [
        ("aabaabbbb", False, "b"),  # 5 : 4
        ("aaaabaaaacbbbbb", False, "a"),  # 8 : 6
        ("aaaabaaaacbbbbb", True, "b"),  # the authors' code never looks back at what came before the window
        ("aabab aab", True, "a"),  # never unanimous: a vote over all
    ],
)
async def test_early_stopping_asks_for_windows(answers: str, by_last: bool, elected: str, tmp_path: Path) -> None:
    size = 5 if len(answers) % 5 == 0 else 3
    strategy = replace(vote(Unanimous(window=size), most=len(answers), batch=size), by_last=by_last)
    solution, backend, _ = await solve(strategy, said(answers), tmp_path)
    assert len(backend.requests) == len(answers)
    assert {answer.content for answer in solution.answers} == {f"\\boxed{{{elected}}}"}


async def test_a_batch_is_the_same_draws_as_one_at_a_time(tmp_path: Path) -> None:
    names = []
    for batch in (1, 4):
        solution, _, _ = await solve(vote(Beta(), most=8, batch=batch), said("abababab"), tmp_path / str(batch))
        names.append(solution.rounds[0].trajectories)
    assert names[0] == names[1]


def finishing(replies: Sequence[Completion | None]) -> Reply:
    """Those there is something for finish, or fail where it is None; all others think on for ever."""

    async def reply(request: Request, n: int) -> Completion:
        if n >= len(replies):
            await asyncio.Event().wait()
        found = replies[n]
        if found is None:
            raise RequestError("no")
        return found

    return reply


def answer(name: str, tokens: int, finish_reason: str = "stop") -> Completion:
    return Completion(content=f"\\boxed{{{name}}}", generated_tokens=tokens, finish_reason=finish_reason)


async def test_short_m_at_k_takes_the_first_and_aborts_the_rest(tmp_path: Path) -> None:
    replies = [answer("a", 9), answer("b", 5), answer("a", 8)]
    solution, backend, sampler = await solve(ShortMAtK(k=6, m=3, grader=GRADER), finishing(replies), tmp_path)
    assert [found.index for found in solution.answers] == [2]  # a : b is 2 : 1, and the shorter a
    assert len(backend.requests) == 6
    assert len(backend.cancelled) == 3
    assert (sampler.account.generated, sampler.account.discarded) == (22, 3 * 3)
    assert len(solution.rounds[0].trajectories) == 3


async def test_short_m_at_k_gives_a_tie_to_the_shortest(tmp_path: Path) -> None:
    replies = [answer("a", 9), answer("b", 5), answer("c", 8)]
    solution, _, _ = await solve(ShortMAtK(k=4, m=3, grader=GRADER), finishing(replies), tmp_path)
    assert [found.content for found in solution.answers] == ["\\boxed{b}"]


async def test_the_failed_and_the_truncated_are_not_done(tmp_path: Path) -> None:
    """A backend that refuses at once would otherwise always finish first."""
    replies = [None, answer("a", 3, "length"), answer("b", 5)]
    strategy = ShortMAtK(k=4, m=1, grader=GRADER)
    solution, backend, _ = await solve(strategy, finishing(replies), tmp_path)
    assert [found.content for found in solution.answers] == ["\\boxed{b}"]
    assert [request.id for request in backend.cancelled] == [backend.requests[3].id]
    nobody, _, _ = await solve(strategy, finishing([None] * 4), tmp_path / "nobody")
    assert nobody.reason == "no valid answer among 0 trajectories"


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"strategy\.m is 3 of strategy\.k=2"):
        ShortMAtK(k=2, m=3, grader=GRADER)
    with pytest.raises(ValueError, match=r"strategy\.most is 0"):
        vote(Beta(), most=0)
    with pytest.raises(ValueError, match=r"strategy\.batch is 0"):
        vote(Beta(), batch=0)
