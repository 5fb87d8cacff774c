"""Parallel-Probe against rounds of probes worked by hand."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from pacore_lab.errors import RequestError
from pacore_lab.grading import MathGrader, NoGrader
from pacore_lab.interfaces import Capabilities, Chunk, OnChunk, Request, needs_of
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.types import Completion, Problem, Solution
from strategies.parallel_probe import ParallelProbe, _up_to_the_brace
from tests.doubles import Scripted, dispatcher, episode, user

PROBLEM = Problem(id="p", messages=user("2 + 2?"), answer="4")
PROBE = " so \\boxed{"
EVERY = 10


class Branching(Scripted):
    """Branch i writes a piece for each digit of its script, says that digit when it is probed there, and goes on.

    "?" is no answer, "!" a fault. A script that ends with "." finishes with the digit before it; any other thinks on.
    """

    capabilities = Capabilities(seeds="request", partial=True, prefill=True)

    def __init__(self, scripts: Sequence[str]) -> None:
        super().__init__()
        self.scripts = scripts
        self.branches: list[Request] = []
        self.probes: list[Request] = []
        self.probed: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        last = request.prompt[-1]
        if last["role"] == "assistant":
            return self.probe(request, str(last["content"]))
        number = len(self.branches)
        self.branches.append(request)
        script, text = self.scripts[number], ""
        try:
            for digit in script.removesuffix("."):
                piece = f"<{number}:{digit}>"
                text += piece
                if on_chunk:
                    on_chunk(Chunk(text=piece, tokens=EVERY))
                await self.probed[text].wait()
            if not script.endswith("."):
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        end = "no box" if script[-2] in "?!" else f"\\boxed{{{script[-2]}}}"
        return Completion(content=f"{text} {end}", generated_tokens=EVERY * len(script))

    def probe(self, request: Request, text: str) -> Completion:
        self.probes.append(request)
        text = text.removesuffix(PROBE)
        self.probed[text].set()
        if text[-2] == "!":
            raise RequestError("no")
        said = "well, it is" if text[-2] == "?" else f"{text[-2]}}}</think> which \\boxed{{9}}"
        return Completion(content=said, finish_reason="length", generated_tokens=5)


async def solve(path: Path, *scripts: str, **settings: int) -> tuple[Solution, Branching, EpisodeSampler]:
    wanted = {"branches": len(scripts), "every": EVERY, "warmup": 0, "patience": 99, "stable": 99, **settings}
    strategy = ParallelProbe(grader=NoGrader(), probe=PROBE, **wanted)
    backend = Branching(scripts)
    async with dispatcher(backend, path, concurrency=32) as dispatch:
        sampler = episode(dispatch)
        solution = await asyncio.wait_for(strategy.solve(PROBLEM, sampler), 60)
    return solution, backend, sampler


def widths(solution: Solution) -> list[int]:
    return [len(done.trajectories) for done in solution.rounds]


async def test_a_stable_majority_stops_all_and_can_be_graded(tmp_path: Path) -> None:
    solution, backend, sampler = await solve(tmp_path, "444444", "444444", "555555", stable=2)
    assert widths(solution) == [3, 3, 3]
    assert len(backend.probes) == 9
    assert {request.params.max_tokens for request in backend.probes} == {20}
    assert {request.id for request in backend.cancelled} == {request.id for request in backend.branches}
    [answer] = solution.answers
    assert answer.content == " so \\boxed{4}"
    assert answer.id in solution.rounds[-1].trajectories
    assert (await MathGrader().grade(PROBLEM, answer)).score == 1.0
    assert sampler.account.generated == 9 * 5
    assert sampler.account.discarded >= 9 * EVERY


async def test_a_change_of_majority_starts_the_count_anew(tmp_path: Path) -> None:
    solution, _, _ = await solve(tmp_path, "44555555", "44555555", stable=2)
    assert widths(solution) == [2] * 5
    assert solution.answers[0].content == " so \\boxed{5}"


async def test_a_tie_leaves_the_majority_that_stands(tmp_path: Path) -> None:
    solution, _, _ = await solve(tmp_path, "4455", "5444", "4555", "5544", stable=3)
    assert widths(solution) == [4] * 4
    assert solution.answers[0].content == " so \\boxed{4}"


async def test_who_disagrees_too_often_in_a_row_is_aborted_and_has_no_vote(tmp_path: Path) -> None:
    scripts = ("44444.", "44444.", "5455555", "5555555")
    solution, backend, _ = await solve(tmp_path, *scripts, patience=3, warmup=1)
    assert backend.cancelled == [backend.branches[3], backend.branches[2]]  # astray in 2 to 4, and in 3 to 5
    assert [answer.content[-9:] for answer in solution.answers] == ["\\boxed{4}"]
    assert widths(solution) == [2, 4, 4, 4, 4, 3]


async def test_no_answer_to_a_probe_is_disagreement(tmp_path: Path) -> None:
    solution, backend, _ = await solve(tmp_path, "4444.", "4444.", "????????", patience=2)
    assert backend.cancelled == [backend.branches[2]]
    assert widths(solution) == [2, 3, 3, 2, 2]
    assert solution.rounds[1].classes[2] is None


async def test_a_probe_that_failed_says_nothing(tmp_path: Path) -> None:
    """A server that refused a few probes would prune whoever they were meant for."""
    _, backend, sampler = await solve(tmp_path, "44444.", "44444.", "5!5!!.", patience=3)
    assert backend.cancelled == []
    assert sampler.account.failed == 3


async def test_the_last_running_branch_is_kept(tmp_path: Path) -> None:
    solution, backend, _ = await solve(tmp_path, "4.", "4.", "5555.", patience=1, warmup=1)
    assert backend.cancelled == []
    assert widths(solution) == [3, 3, 1, 1, 1]
    assert [answer.content[-9:] for answer in solution.answers] == ["\\boxed{4}"]


async def test_an_answer_that_came_to_its_end_stands_for_the_majority(tmp_path: Path) -> None:
    """A finished trajectory can be graded again from its record, a probe lacks its box there."""
    solution, _, _ = await solve(tmp_path, "4.", "444444", "444444", stable=2)
    assert solution.answers[0].content == "<0:4> \\boxed{4}"
    assert solution.answers[0].id == solution.rounds[0].trajectories[0]


async def test_without_any_answer_nothing_is_stable(tmp_path: Path) -> None:
    solution, backend, _ = await solve(tmp_path, "????.", "????.", stable=1, patience=1)
    assert backend.cancelled == []
    assert solution.reason == "no valid answer among 2 trajectories"


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("4}", "4}"),
        ("\\frac{1}{2}} so", "\\frac{1}{2}}"),
        ("\\{1\\}} and", "\\{1\\}}"),
        ("\\\\}", "\\\\}"),
        ("}", "}"),
        ("4", None),
        ("{4}", None),
        ("4\\}", None),
    ],
)
def test_a_probe_ends_where_its_box_does(text: str, inside: str | None) -> None:
    assert _up_to_the_brace(text) == inside


def test_arguments_out_of_range() -> None:
    for key in ("branches", "every", "patience", "stable", "probe_tokens"):
        with pytest.raises(ValueError, match=rf"strategy\.{key} is 0"):
            ParallelProbe(grader=NoGrader(), **{key: 0})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"strategy\.warmup is -1"):
        ParallelProbe(grader=NoGrader(), warmup=-1)
    with pytest.raises(ValueError, match=r"strategy\.probe is 'so'; end it with an open brace"):
        ParallelProbe(grader=NoGrader(), probe="so")
    assert needs_of(ParallelProbe(grader=NoGrader())) == {"partial", "prefill", "answers"}
