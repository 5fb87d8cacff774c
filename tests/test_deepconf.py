"""DeepConf against examples worked by hand, with what it aborts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacore_lab.errors import RequestError
from pacore_lab.grading import NoGrader
from pacore_lab.interfaces import Chunk, OnChunk, Request, needs_of
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.types import Completion, Problem, Solution
from strategies.deepconf import DeepConfOffline, DeepConfOnline, Score, group_confidences
from tests.doubles import Scripted, dispatcher, episode, user

PROBLEM = Problem(id="p", messages=user("2 + 2?"), answer="4")
GRADER = NoGrader()
ON = float("inf")
"""A token after which a trace thinks on for ever."""
Trace = tuple[str, Sequence[float]]
"""Its answer ("" for none) and the confidences of its tokens."""


class Tracing(Scripted):
    """Writes the traces token by token, in the order in which they are asked for; without tokens one fails."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        super().__init__()
        self.traces = traces

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        name, confidences = self.traces[len(self.requests)]
        self.requests.append(request)
        try:
            if not confidences:
                raise RequestError("no")
            for confidence in confidences:
                if confidence is ON:
                    await asyncio.Event().wait()
                if on_chunk:
                    on_chunk(Chunk(text=".", tokens=1, confidences=(confidence,)))
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        content = f"\\boxed{{{name}}}" if name else "no box"
        return Completion(content=content, generated_tokens=len(confidences), confidences=tuple(confidences))


async def solve(
    strategy: DeepConfOffline | DeepConfOnline, traces: Sequence[Trace], path: Path
) -> tuple[Solution, Tracing, EpisodeSampler]:
    backend = Tracing(traces)
    async with dispatcher(backend, path) as dispatch:
        sampler = episode(dispatch)
        solution = await asyncio.wait_for(strategy.solve(PROBLEM, sampler), 60)
    return solution, backend, sampler


def answers(solution: Solution) -> list[str | None]:
    return [GRADER.extract(answer) for answer in solution.answers]


def test_groups_slide_by_one_token() -> None:
    tokens = np.array([1.0, 2.0, 3.0, 8.0])
    assert group_confidences(tokens, 2).tolist() == [1.5, 2.5, 5.5]
    assert group_confidences(tokens, 4).tolist() == group_confidences(tokens, 9).tolist() == [3.5]


@given(st.lists(st.floats(0, 40), min_size=1, max_size=60), st.integers(1, 70))
def test_groups_are_means_of_slices(tokens: list[float], window: int) -> None:
    width = min(window, len(tokens))
    slices = [np.mean(tokens[start : start + width]) for start in range(len(tokens) - width + 1)]
    assert group_confidences(np.array(tokens), window) == pytest.approx(slices)


MIXED: list[Trace] = [("a", [9, 9, 0, 0, 5, 5]), ("b", [4, 4, 4, 4]), ("c", [3, 3, 3, 9])]
LONG: list[Trace] = [("d", [0, *[10] * 20]), ("e", [4] * 21)]


@pytest.mark.parametrize(
    ("score", "window", "traces", "winner"),
    [
        ("mean", 2, MIXED, "a"),  # 4.67, 4, 4.5
        ("tail", 2, MIXED, "c"),  # 5, 4, 6
        ("lowest_group", 2, MIXED, "b"),  # 0, 4, 3
        ("lowest_group", 1, LONG, "e"),  # 0, 4
        ("bottom_10", 1, LONG, "d"),  # of 21 windows the lowest two: 5, 4
        ("bottom_10", 2, MIXED, "b"),  # of fewer than 20 windows the lowest one
    ],
)
async def test_the_surest_trace_by_each_score(
    score: Score, window: int, traces: list[Trace], winner: str, tmp_path: Path
) -> None:
    strategy = DeepConfOffline(n=len(traces), grader=GRADER, score=score, keep=0.1, window=window, tail=2)
    solution, _, _ = await solve(strategy, traces, tmp_path)
    assert answers(solution) == [winner]
    assert len(solution.rounds[0].trajectories) == len(traces)


@pytest.mark.parametrize(
    ("keep", "winner"),
    [
        (1.0, "a"),  # 1.5 + 3 against 4
        (0.9, "b"),  # the 10th percentile of 1.5, 3, 4 is 1.8
        (0.1, "b"),
    ],
)
async def test_the_kept_vote_with_their_confidence(keep: float, winner: str, tmp_path: Path) -> None:
    """What has no answer must not push one that has out of the kept share."""
    traces: list[Trace] = [("a", [1, 2]), ("", [9, 9]), ("a", [3]), ("b", [4, 4]), ("c", [])]
    solution, _, _ = await solve(DeepConfOffline(n=5, grader=GRADER, score="mean", keep=keep), traces, tmp_path)
    assert answers(solution) == [winner]


async def test_offline_without_an_answer_has_none(tmp_path: Path) -> None:
    solution, _, _ = await solve(DeepConfOffline(n=2, grader=GRADER), [("", [1]), ("a", [])], tmp_path)
    assert solution.reason == "no valid answer among 2 trajectories"


WARM: list[Trace] = [("a", [1, 9]), ("a", [2, 2, 2]), ("b", [3, 3]), ("a", [4, 9, 0])]
"""With windows of 2 their lowest are 5, 2, 3, 4.5: the median is 3.75, and the first and the last vote, both for a."""


def online(**kwargs: float) -> DeepConfOnline:
    settings = {"warmup": 4, "budget": 7, "batch": 3, "keep": 0.5, "window": 2, "every": 1, "consensus": 0.95, **kwargs}
    return DeepConfOnline(grader=GRADER, **settings)  # type: ignore[arg-type]


async def test_weak_traces_are_aborted_and_the_others_vote(tmp_path: Path) -> None:
    warm = [*WARM[:3], ("c", WARM[3][1])]
    later: list[Trace] = [
        ("b", [5, 5, 0, ON]),  # its second window is 2.5
        ("b", [0, 9, 9]),  # a weak token is not a whole window; its lowest is 4.5
        ("b", [4, 4]),
    ]
    solution, backend, sampler = await solve(online(), [*warm, *later], tmp_path)
    assert answers(solution) == ["b"]  # 4.5 + 4 against 5 and 4.5; the b of the warm-up is under the threshold
    assert backend.cancelled == [backend.requests[4]]
    assert sampler.account.discarded == 3
    assert [len(done.trajectories) for done in solution.rounds] == [4, 2]


async def test_a_short_whole_trace_under_the_threshold_has_no_vote(tmp_path: Path) -> None:
    warm = [*WARM[:3], ("c", WARM[3][1])]
    later: list[Trace] = [("b", [3.7]), ("b", [9, 9, 0]), ("b", [3, 3])]
    solution, backend, _ = await solve(online(every=50), [*warm, *later], tmp_path)
    assert answers(solution) == ["a"]
    assert backend.cancelled == []


async def test_agreement_after_the_warm_up_ends_it(tmp_path: Path) -> None:
    solution, backend, _ = await solve(online(), WARM, tmp_path)
    assert answers(solution) == ["a"]
    assert len(backend.requests) == 4
    assert len(solution.rounds) == 1


async def test_agreement_aborts_the_rest_and_starts_no_more(tmp_path: Path) -> None:
    warm: list[Trace] = [("a", [3, 3]), ("b", [3, 3])]
    later: list[Trace] = [("b", [9, 9, ON]), ("a", [60, 60]), ("b", [9, ON])]  # 63 of 66 is 0.955
    strategy = online(warmup=2, budget=20, keep=1.0)
    solution, backend, sampler = await solve(strategy, [*warm, *later], tmp_path)
    assert answers(solution) == ["a"]
    assert len(backend.requests) == 5
    assert len(backend.cancelled) == sampler.account.aborted == 2


async def test_the_budget_is_the_most(tmp_path: Path) -> None:
    traces: list[Trace] = [(name, [3, 3]) for name in "abababa"]
    solution, backend, _ = await solve(online(batch=2, keep=1.0), traces, tmp_path)
    assert len(backend.requests) == 7
    assert answers(solution) == ["a"]
    assert [len(done.trajectories) for done in solution.rounds] == [4, 3]


async def test_without_votes_there_is_no_answer(tmp_path: Path) -> None:
    failed, _, _ = await solve(online(), [("a", [])] * 4, tmp_path / "failed")
    assert failed.reason == "none of 4 warm-up trajectories sets a threshold"
    unsure: list[Trace] = [("", [9, 9]), *[("a", [1, 1])] * 6]
    solution, _, _ = await solve(online(keep=0.01, every=50), unsure, tmp_path / "unsure")
    assert (answers(solution), solution.reason) == (
        [],
        "no valid answer among the trajectories whose confidence reaches 8.76",
    )


async def test_confidences_have_to_be_there(tmp_path: Path) -> None:
    backend = Scripted(lambda request, n: "\\boxed{4}")
    async with dispatcher(backend, tmp_path) as dispatch:
        with pytest.raises(ValueError, match=r"has no confidences; set model\.logprobs=true model\.top_logprobs=20"):
            await DeepConfOffline(n=2, grader=GRADER).solve(PROBLEM, episode(dispatch))
    assert needs_of(online()) >= {"partial", "logprobs", "top_logprobs", "answers"}


def test_arguments_out_of_range() -> None:
    for key in ("warmup", "budget", "batch", "window", "every"):
        with pytest.raises(ValueError, match=rf"strategy\.{key} is 0"):
            online(**{key: 0})
    for key in ("keep", "consensus"):
        with pytest.raises(ValueError, match=rf"strategy\.{key} is 1.5"):
            online(**{key: 1.5})
    with pytest.raises(ValueError, match=r"strategy\.warmup is 9 of strategy\.budget=7"):
        online(warmup=9)
    with pytest.raises(ValueError, match=r"strategy\.score is 'median'"):
        DeepConfOffline(n=2, grader=GRADER, score="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"strategy\.tail is 0"):
        DeepConfOffline(n=2, grader=GRADER, tail=0)
