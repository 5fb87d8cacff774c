"""The line of results.jsonl that an episode leaves: its texts, grades, tokens, and the two free baselines."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pacore_lab.interfaces import Grader
from pacore_lab.sampler import Drawn, EpisodeSampler
from pacore_lab.store import Stored
from pacore_lab.types import Grade, Problem, Round, Solution, Trajectory


async def line_of(
    problem: Problem,
    repeat: int,
    sampler: EpisodeSampler,
    rows: Mapping[str, Stored],
    solution: Solution | None,
    error: str | None,
    grader: Grader,
) -> dict[str, Any]:
    """The published client's keys and ours.

    rows: what the store holds of the episode's trajectories. solution: None where the strategy failed with `error`.
    """
    drawn = {item.id: item for item in sampler.drawn}
    trajectories = {key: _trajectory(item, rows[key]) for key, item in drawn.items()}
    rounds = solution.rounds if solution else _rounds(sampler.drawn)
    if solution and not solution.answers and all(drawn[key].error for key in rounds[-1].trajectories):
        error = solution.reason
    final = solution.answers[0] if solution and solution.answers else None
    grade = await _grade(problem, solution, error, grader)
    first = [trajectory for key, trajectory in trajectories.items() if drawn[key].round == 1]
    return {
        "request_id": problem.id,
        "repeat": repeat,
        "final_response": final.content if final else "",
        "final_reasoning_content": final.completion.reasoning if final else "",
        "round_responses": [[_response(trajectories[key]) for key in done.trajectories] for done in rounds],
        "problem": problem.messages,
        "ground_truth": None if problem.answer is None else {"answer": problem.answer},
        "final_answer": grade.answer,
        "grade": {"score": grade.score, "reason": grade.reason},
        "messages": [[asdict(message) for message in done.messages] for done in rounds],
        "trajectories": [[_facts(trajectories[key], drawn[key]) for key in done.trajectories] for done in rounds],
        "tokens": {**asdict(sampler.account), "ttc": sampler.account.ttc},
        "baselines": await _baselines(problem, first, grader),
        "error": error,
    }


async def _grade(problem: Problem, solution: Solution | None, error: str | None, grader: Grader) -> Grade:
    if solution is None or error is not None:
        return Grade(score=None, reason=f"failed: {error}")
    if not solution.answers:
        return Grade(score=None if problem.answer is None else 0.0, reason=f"no answer: {solution.reason}")
    grades = [await grader.grade(problem, trajectory) for trajectory in solution.answers]
    score = _mean_if_all([grade.score for grade in grades])
    if score is None:
        return next(grade for grade in grades if grade.score is None)
    reason = grades[0].reason if len(grades) == 1 else f"mean over {len(grades)} tied answers"
    return Grade(score=score, answer=grades[0].answer, reason=reason)


async def _baselines(problem: Problem, first: Sequence[Trajectory], grader: Grader) -> dict[str, Any]:
    """What a single sample and a majority vote make of the same first round, ties as the mean over tied classes."""
    if not first:
        return {}
    scores = [(await grader.grade(problem, trajectory)).score for trajectory in first]
    tokens = [trajectory.completion.generated_tokens for trajectory in first]
    graded = [score for score in scores if score is not None]
    mean_tokens = statistics.fmean(tokens)
    single = statistics.fmean(graded) if graded else None
    baselines = {"single": {"k": 1, "score": single, "ttc": mean_tokens, "critical_path": mean_tokens}}
    if len(first) > 1:
        classes = await grader.classes([grader.extract(trajectory) for trajectory in first])
        votes = Counter(name for name in classes if name is not None)
        top = [name for name, count in votes.items() if count == max(votes.values())]
        vote = _mean_if_all([scores[classes.index(name)] for name in top])
        if not votes and graded:
            vote = 0.0  # every sample was graded, none holds a valid answer
        costs = {"ttc": float(sum(tokens)), "critical_path": float(max(tokens))}
        baselines["majority_vote"] = {"k": len(first), "score": vote, **costs}
    return baselines


def _mean_if_all(scores: Sequence[float | None]) -> float | None:
    graded = [score for score in scores if score is not None]
    return statistics.fmean(graded) if graded and len(graded) == len(scores) else None


def _trajectory(item: Drawn, row: Stored) -> Trajectory:
    return Trajectory(id=item.id, index=item.index, completion=row.completion, error=item.error)


def _rounds(drawn: Sequence[Drawn]) -> tuple[Round, ...]:
    """Of an episode that failed under way: what had been drawn, by round."""
    numbers = sorted({item.round for item in drawn})
    ids = [tuple(item.id for item in drawn if item.round == number) for number in numbers]
    return tuple(Round(trajectories=trajectories, messages=()) for trajectories in ids)


def _response(trajectory: Trajectory) -> dict[str, str]:
    return {"content": trajectory.content, "reasoning_content": trajectory.completion.reasoning}


def _facts(trajectory: Trajectory, item: Drawn) -> dict[str, Any]:
    done = trajectory.completion
    return {
        "id": trajectory.id,
        "index": trajectory.index,
        "finish_reason": done.finish_reason,
        "error": trajectory.error,
        "tokens": done.generated_tokens,
        "counted": done.counted,
        "reused": item.reused,
        "clamped": done.clamped,
        "mean_logprob": done.mean_logprob,
    }
