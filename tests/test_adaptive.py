"""Schedules that look at the rounds so far, by hand and in whole episodes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacore_lab.grading import NoGrader
from pacore_lab.interfaces import Plan, Request, Schedule
from pacore_lab.types import Completion, Problem, Round, Solution
from strategies.adaptive import AgreementStop, ByDisagreement, Quorum, SkipAgreed, TokenBudget, disagreement
from strategies.allocated import Allocated
from strategies.compaction import Conclusion, GlobalSummary, LLMSummary
from strategies.orders import Published
from strategies.pacore import PaCoRe
from strategies.population import Population
from strategies.prompts import Template
from strategies.schedules import Fixed
from strategies.stopping import Beta, Share, Unanimous
from tests.doubles import Scripted, dispatcher, episode, user

PROBLEM = Problem(id="p", messages=user("2 + 2?"), answer="4")
HIGH = Fixed(widths=[32, 4])
UNANIMOUS = Share(least=2, share=1.0)


def after(*rounds: str, tokens: int = 10, stopped: bool = False) -> list[Round]:
    """Finished rounds: a character per trajectory, its answer; "." for none. stopped: the first one, by its rule."""
    found = []
    for answers in rounds:
        classes = tuple(None if answer == "." else ord(answer) for answer in answers)
        ids = tuple(str(place) for place in range(len(answers)))
        found.append(Round(trajectories=ids, messages=(), classes=classes, tokens=tokens * len(answers)))
    return [replace(done, stopped=stopped and done is found[0]) for done in found]


def test_quorum_is_a_share_of_the_width_and_spares_the_last_round() -> None:
    schedule = Quorum(of=HIGH, share=0.75)
    assert schedule([]) == Plan(width=32, quorum=24)
    assert schedule(after("a" * 24)) == Plan(width=4, quorum=3)
    assert schedule(after("a" * 24, "aaa")) == Plan(width=1)
    assert schedule(after("a" * 24, "aaa", "a")) is None


def test_agreed_rounds_end_it() -> None:
    schedule = SkipAgreed(of=HIGH, rule=UNANIMOUS)
    assert schedule([]) == Plan(width=32)
    assert schedule(after("a" * 32)) is None
    assert schedule(after("a" * 31 + "b")) == Plan(width=4)
    assert schedule(after("a" * 31 + ".")) == Plan(width=4)  # no answer is no agreement
    assert schedule(after("a" * 31 + "b", "aaaa")) is None
    assert schedule(after("a" * 31 + "b", "aaab")) == Plan(width=1)
    assert schedule(after("a" * 31 + "b", "aaab", "a")) is None


def test_the_first_round_stops_by_its_rule_and_what_follows_is_said() -> None:
    rule = Beta(threshold=0.95)
    vote = AgreementStop(of=HIGH, rule=rule, batch=2)
    assert vote([]) == Plan(width=32, stop=rule, batch=2)
    assert vote(after("aaaa", stopped=True)) is None
    assert vote(after("ab" * 16)) == Plan(width=4)
    synthesize = AgreementStop(of=HIGH, rule=rule, batch=2, then="synthesize")
    assert synthesize(after("aaaa", stopped=True)) == Plan(width=1)
    assert synthesize(after("aaaa", "a", stopped=True)) is None
    assert vote.needs == {"answers"}
    assert AgreementStop(of=HIGH, rule=rule).needs == {"answers", "partial"}


def test_the_next_width_is_the_share_that_disagrees() -> None:
    schedule = ByDisagreement(first=4, most=16)
    assert schedule([]) == Plan(width=4)
    assert schedule(after("aabb")) == Plan(width=8)
    assert schedule(after("aab.")) == Plan(width=8)
    assert schedule(after("aaab")) == Plan(width=4)
    assert schedule(after("aaaa")) == Plan(width=1)
    assert schedule(after("....")) == Plan(width=16)
    assert schedule(after("aabb", "a" * 8)) == Plan(width=1)
    assert schedule(after("aaaa", "a")) is None
    assert disagreement([None, 1, 1, 2]) == 0.5


def test_a_token_budget_narrows_the_rounds_and_keeps_the_last_one() -> None:
    schedule = TokenBudget(of=Fixed(widths=[4, 4]), tokens=80)
    assert schedule([]) == Plan(width=4)
    assert schedule(after("abcd", tokens=10)) == Plan(width=3)  # 40 left: 3 and the last one
    assert schedule(after("abcd", tokens=5)) == Plan(width=4)
    assert schedule(after("abcd", tokens=15)) == Plan(width=1)  # 20 left, 15 each: the last one alone
    assert schedule(after("abcd", tokens=50)) == Plan(width=1)
    assert schedule(after("abcd", "a", tokens=50)) is None


SCHEDULES = [
    Quorum(of=HIGH),
    SkipAgreed(of=HIGH, rule=UNANIMOUS),
    AgreementStop(of=HIGH, rule=Beta()),
    AgreementStop(of=Quorum(of=HIGH), rule=Beta(), then="synthesize"),
    ByDisagreement(first=4, most=8),
    TokenBudget(of=HIGH, tokens=100),
    TokenBudget(of=SkipAgreed(of=ByDisagreement(first=8, most=16), rule=UNANIMOUS), tokens=300),
]


@given(st.sampled_from(SCHEDULES), st.data())
def test_every_schedule_ends_and_asks_for_no_empty_round(schedule: Schedule, data: st.DataObject) -> None:
    rounds: list[Round] = []
    while (plan := schedule(rounds)) is not None:
        assert plan.width >= 1
        assert plan.quorum is None or 1 <= plan.quorum <= plan.width
        answers = data.draw(st.text("ab.", min_size=plan.quorum or plan.width, max_size=plan.width))
        rounds += after(answers, tokens=data.draw(st.integers(1, 40)), stopped=data.draw(st.booleans()))
        assert len(rounds) <= 4


@pytest.mark.parametrize("share", [0, 1.1, -1])
def test_shares_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"strategy\.schedule\.share"):
        Quorum(of=HIGH, share=share)


def pacore(schedule: Schedule) -> PaCoRe:
    parts = {"prompt": Template(), "order": Published(), "compaction": Conclusion()}
    return PaCoRe(schedule=schedule, grader=NoGrader(), **parts)  # type: ignore[arg-type]


def in_turn(say: Callable[[int], str], held: Collection[int] = ()) -> Callable[[Request, int], Awaitable[Completion]]:
    """An engine's replies of 10 tokens: the n-th comes after the one before it, those in `held` never come."""
    came: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)

    async def reply(request: Request, n: int) -> Completion:
        if n in held:
            await asyncio.Event().wait()
        if n and n - 1 not in held:
            await came[n - 1].wait()
        came[n].set()
        return Completion(content=say(n), generated_tokens=10)

    return reply


async def solved(
    strategy: PaCoRe | Allocated, answers: str, path: Path, held: Collection[int] = ()
) -> tuple[Solution, Scripted, int]:
    """With an engine whose n-th trajectory says answers[n]."""
    backend = Scripted(in_turn(lambda n: f"\\boxed{{{answers[n]}}}", held))
    async with dispatcher(backend, path, concurrency=64) as dispatch:
        sampler = episode(dispatch)
        solution = await strategy.solve(PROBLEM, sampler)
        return solution, backend, sampler.account.aborted


async def test_a_quorum_goes_on_and_aborts_the_rest(tmp_path: Path) -> None:
    schedule = Quorum(of=Fixed(widths=[4]), share=0.5)
    solution, backend, aborted = await solved(pacore(schedule), "aabbc", tmp_path, held={2, 3})
    assert [len(done.trajectories) for done in solution.rounds] == [2, 1]
    assert [answer.content for answer in solution.answers] == ["\\boxed{c}"]
    assert len(backend.cancelled) == aborted == 2


async def test_agreement_in_batches_aborts_nothing(tmp_path: Path) -> None:
    schedule = AgreementStop(of=Fixed(widths=[8]), rule=Share(least=3, share=0.7), batch=2)
    solution, backend, aborted = await solved(pacore(schedule), "abbbbbbbb", tmp_path)
    assert len(backend.requests) == 4
    assert (aborted, backend.cancelled) == (0, [])
    assert [answer.content for answer in solution.answers] == ["\\boxed{b}"]  # of a, b, b, b
    assert len(solution.rounds) == 1


async def test_agreement_over_a_stream_aborts_the_rest(tmp_path: Path) -> None:
    schedule = AgreementStop(of=Fixed(widths=[8]), rule=Share(least=3, share=0.7))
    solution, backend, aborted = await solved(pacore(schedule), "abbbbbbbb", tmp_path, held={4, 5, 6, 7})
    assert len(solution.rounds[0].trajectories) == 4
    assert len(backend.cancelled) == aborted == 4


async def test_a_rule_is_asked_of_answers_as_they_came(tmp_path: Path) -> None:
    """The round ended by its rule; asked again in message order, c b c a, the rule denied it, and a round followed."""
    schedule = AgreementStop(of=Fixed(widths=[8]), rule=Unanimous(window=2), batch=2)
    solution, backend, _ = await solved(pacore(schedule), "abcc", tmp_path)
    assert len(backend.requests) == 4
    assert [answer.content for answer in solution.answers] == ["\\boxed{c}"]
    assert solution.rounds[0].stopped
    full = SkipAgreed(of=Fixed(widths=[4]), rule=Unanimous(window=2))
    solution, backend, _ = await solved(pacore(full), "abcc", tmp_path / "full")
    assert len(backend.requests) == 4


async def test_a_token_budget_counts_what_a_compaction_asked(tmp_path: Path) -> None:
    """By hand, 10 tokens each: 4 and their summaries are 80 of 160, 20 each. 80 are 3 with summaries, and the last."""
    schedule = TokenBudget(of=Fixed(widths=[4, 4, 4]), tokens=160)
    summary = LLMSummary(of=Conclusion(), max_tokens=40)
    strategy = replace(pacore(schedule), compaction=summary)
    backend = Scripted(lambda request, n: Completion(content="\\boxed{1}", generated_tokens=10))
    async with dispatcher(backend, tmp_path) as dispatch:
        solution = await strategy.solve(PROBLEM, episode(dispatch))
    assert [len(done.trajectories) for done in solution.rounds] == [4, 3, 1]
    assert [done.tokens for done in solution.rounds] == [80, 60, 10]


async def test_a_paid_summary_is_read(tmp_path: Path) -> None:
    """A budget that the summary itself used up ended the episode: it was paid for, and nobody read it."""
    schedule = TokenBudget(of=Fixed(widths=[1, 1, 1, 1]), tokens=35)
    strategy = replace(pacore(schedule), compaction=LLMSummary(of=Conclusion(), max_tokens=40))
    backend = Scripted(lambda request, n: Completion(content="\\boxed{1}", generated_tokens=10))
    async with dispatcher(backend, tmp_path) as dispatch:
        solution = await strategy.solve(PROBLEM, episode(dispatch))
    assert [(len(done.messages), done.tokens) for done in solution.rounds] == [(1, 20), (0, 10)]


async def test_what_a_quorum_aborted_is_part_of_a_rounds_cost(tmp_path: Path) -> None:
    schedule = TokenBudget(of=Quorum(of=Fixed(widths=[4]), share=0.5), tokens=1000)
    backend = Scripted(in_turn(lambda n: "\\boxed{1}", held={2, 3}))
    async with dispatcher(backend, tmp_path, concurrency=8) as dispatch:
        sampler = episode(dispatch)
        solution = await pacore(schedule).solve(PROBLEM, sampler)
    assert sampler.account.aborted == 2
    assert sum(done.tokens for done in solution.rounds) == sampler.account.ttc


async def test_a_schedule_that_ends_with_several_takes_their_vote(tmp_path: Path) -> None:
    solution, _, _ = await solved(pacore(SkipAgreed(of=Fixed(widths=[3]), rule=UNANIMOUS)), "aaab", tmp_path)
    assert [answer.content for answer in solution.answers] == ["\\boxed{a}"]
    assert len(solution.rounds) == 1


def test_parts_that_compare_answers_need_a_grader_that_does() -> None:
    parts = {"prompt": Template(), "order": Published(), "compaction": Conclusion()}
    for schedule in (SkipAgreed(of=HIGH, rule=UNANIMOUS), Population(width=4, loops=2)):
        with pytest.raises(ValueError, match=r"strategy\.grader is null"):
            PaCoRe(schedule=schedule, **parts)  # type: ignore[arg-type]


async def test_a_budget_goes_where_answers_disagree(tmp_path: Path) -> None:
    """Problem p: answers differ; problem q: all agree. What q brings in, p samples."""

    def reply(request: Request, n: int) -> str:
        same = "q" in str(request.prompt[0]["content"])
        return "\\boxed{1}" if same else f"\\boxed{{{n}}}"

    strategy = Allocated(
        first=2,
        mean=5,
        prompt=Template(),
        order=Published(),
        compaction=Conclusion(),
        grader=NoGrader(),
    )
    problems = [Problem(id="p", messages=user("p")), Problem(id="q", messages=user("q"))]
    from pacore_lab.sampling.claims import Claims
    from pacore_lab.sampling.sampler import EpisodeSampler

    async with dispatcher(Scripted(reply), tmp_path) as dispatch:
        claims = Claims((problem.id, 0) for problem in problems)
        samplers = [EpisodeSampler(dispatch, seed=0, problem=p.id, repeat=0, claims=claims) for p in problems]
        found = await asyncio.gather(*map(strategy.solve, problems, samplers))
    assert [len(done.trajectories) for done in found[0].rounds] == [2 + 6, 1]
    assert [len(done.trajectories) for done in found[1].rounds] == [2]
    assert [answer.content for answer in found[1].answers] == ["\\boxed{1}"]
    assert [sampler.claimed for sampler in samplers] == [(0.5, 3), (0.0, 3)]


async def test_one_budget_for_all_reads_summaries_too(tmp_path: Path) -> None:
    """It called the compaction as if none had ever to ask a model, and failed once all was sampled."""
    strategy = Allocated(
        first=2,
        mean=3,
        prompt=Template(),
        order=Published(),
        compaction=GlobalSummary(of=Conclusion(), max_tokens=40),
        grader=NoGrader(),
    )
    solution, backend, _ = await solved(strategy, "abcde", tmp_path)
    assert len(backend.requests) == 5  # 2, 1 further, the summary, the last one
    assert "\\boxed{d}" in str(backend.requests[-1].prompt)
    assert [answer.content for answer in solution.answers] == ["\\boxed{e}"]


async def test_messages_of_all_rounds_can_stay(tmp_path: Path) -> None:
    """By default a round forgets what the rounds before the last one said."""
    shown: dict[bool, list[list[str]]] = {}
    for accumulate in (False, True):
        strategy = replace(pacore(Fixed(widths=[2, 1])), accumulate=accumulate)
        solution, _, _ = await solved(strategy, "abcd", tmp_path / str(accumulate))
        shown[accumulate] = [sorted(message.text[-2] for message in done.messages) for done in solution.rounds]
    assert shown == {False: [["a", "b"], ["c"], ["d"]], True: [["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"]]}
