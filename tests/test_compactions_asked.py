"""Compactions within PaCoRe's rounds, above all the summaries that a model is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from pacore_lab.grading import NoGrader
from pacore_lab.interfaces import AskingCompaction, Request
from pacore_lab.types import Completion, Message, Problem, Prompt, Trajectory
from strategies.compaction import Conclusion, Dedupe, Full, GlobalSummary, LLMSummary
from strategies.orders import Majority, Published
from strategies.pacore import PaCoRe
from strategies.prompts import Template, with_counts
from strategies.schedules import Fixed
from tests.doubles import Scripted, dispatcher, episode, trajectory, user

PROBLEM = Problem(id="p", messages=user("2 + 2?"), answer="4")


class Summariser:
    """Answers as told, remembers what it was asked, and holds each answer until all have asked."""

    def __init__(self, *replies: Completion | str | None, together: int = 1) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[Prompt, int, str | None, int | None]] = []
        self.barrier = asyncio.Barrier(together)

    async def sample(
        self, prompt: Prompt, n: int, *, role: str | None = None, max_tokens: int | None = None
    ) -> list[Trajectory]:
        reply = self.replies[len(self.asked)]
        self.asked.append((prompt, n, role, max_tokens))
        async with asyncio.timeout(30):
            await self.barrier.wait()
        if reply is None:
            return [trajectory("partial text", error="failed: no")]
        return [trajectory("", completion=reply if isinstance(reply, Completion) else Completion(content=reply))]


async def compacted(
    compaction: AskingCompaction, trajectories: Sequence[Trajectory], sampler: Summariser
) -> tuple[Message, ...]:
    return await compaction.compact(PROBLEM, trajectories, sampler)  # type: ignore[arg-type]


CUT = Completion(content="<think>so long", finish_reason="length")


async def test_summaries_are_asked_at_once_and_unusable_ones_left_out() -> None:
    """A failed, empty or cut summary must not reach the next round, nor the trajectory in its place."""
    ts = [trajectory(f"<think>{name}</think>text {name}", name=name) for name in "abcde"]
    sampler = Summariser("<think>hm</think>\n short a\n", None, "<think>x</think>", CUT, "short e", together=5)
    found = await compacted(LLMSummary(of=Full(), max_tokens=400), [*ts, trajectory("", name="f")], sampler)
    assert found == (Message(text="short a", sources=("a",)), Message(text="short e", sources=("e",)))
    prompt, n, role, max_tokens = sampler.asked[0]
    assert (n, role, max_tokens) == (1, "summarise", 400)
    asked = str(prompt[-1]["content"])
    assert "2 + 2?" in asked
    assert "<think>a</think>text a" in asked
    assert "at most 100 words" in asked


async def test_a_global_summary_is_one_message_of_all() -> None:
    compaction = GlobalSummary(of=Conclusion(), max_tokens=400, role="judge")
    sampler = Summariser("notes")
    ts = [
        trajectory("<think>x</think>one {{ 1 + 1 }}", name="a"),
        trajectory("two", name="b"),
        trajectory("", name="c"),
    ]
    assert await compacted(compaction, ts, sampler) == (Message(text="notes", sources=("a", "b")),)
    [(prompt, n, role, _)] = sampler.asked
    assert (n, role) == (1, "judge")
    assert "Response 1:\none {{ 1 + 1 }}\n\nResponse 2:\ntwo\n" in str(prompt[-1]["content"])
    assert await compacted(compaction, ts, Summariser(None)) == ()
    assert await compacted(compaction, ts, Summariser(CUT)) == ()
    assert await compacted(compaction, [trajectory("")], Summariser()) == ()


@pytest.mark.parametrize("kind", [LLMSummary, GlobalSummary])
def test_only_those_that_ask_are_taken_for_asking(kind: type) -> None:
    assert isinstance(kind(of=Conclusion(), max_tokens=9), AskingCompaction)
    assert not isinstance(Dedupe(of=Conclusion(), keep_invalid=True), AskingCompaction)


async def test_a_round_of_summaries_within_pacore(tmp_path: Path) -> None:
    """The last round is not summarised: nobody would read it, and its tokens would be charged."""

    def reply(request: Request, n: int) -> str:
        return f"<think>x</think>summary {n}" if "Summarize" in str(request.prompt[-1]["content"]) else f"said {n}"

    strategy = PaCoRe(
        schedule=Fixed(widths=[2]),
        prompt=Template(),
        order=Published(),
        compaction=LLMSummary(of=Full(), max_tokens=40),
    )
    backend = Scripted(reply)
    async with dispatcher(backend, tmp_path, concurrency=1) as dispatch:
        solution = await strategy.solve(PROBLEM, episode(dispatch))
    assert [request.params.max_tokens for request in backend.requests] == [None, None, 40, 40, None]
    assert [sorted(m.text for m in done.messages) for done in solution.rounds] == [["summary 2", "summary 3"], []]
    assert str(backend.requests[-1].prompt[-1]["content"]).count("summary ") == 2


async def test_answers_reach_the_parts_that_compare_them(tmp_path: Path) -> None:
    strategy = PaCoRe(
        schedule=Fixed(widths=[3]),
        prompt=with_counts(),
        order=Majority(first=True),
        compaction=Dedupe(of=Conclusion(), keep_invalid=True),
        grader=NoGrader(),
    )
    backend = Scripted(lambda request, n: f"t{n} \\boxed{{{n % 2}}}")
    async with dispatcher(backend, tmp_path, concurrency=1) as dispatch:
        solution = await strategy.solve(PROBLEM, episode(dispatch))
    assert [len(message.sources) for message in solution.rounds[0].messages] == [2, 1]
    asked = str(backend.requests[-1].prompt[-1]["content"])
    assert asked.index("(2 of 3 responses)") < asked.index("boxed{0}") < asked.index("(1 of 3 responses)")
