"""An episode's line of results.jsonl: its texts, tokens, grades, and the two free baselines."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pacore_lab.interfaces import Grader
from pacore_lab.results.kept import passed_on
from pacore_lab.sampling.names import digest
from pacore_lab.sampling.sampler import EpisodeSampler, Sampled
from pacore_lab.sampling.store import Stored
from pacore_lab.types import Completion, Grade, Problem, Round, Solution, Trajectory
from pacore_lab.votes import winners


async def line_of(
    problem: Problem,
    repeat: int,
    sampler: EpisodeSampler,
    rows: Mapping[str, Stored],
    solution: Solution | None,
    error: str | None,
    grader: Grader,
) -> dict[str, Any]:
    """An episode's line: the published client's keys and ours.

    rows: the store's rows for the episode's trajectories. solution: None if the strategy failed with `error`.
    """
    drawn = {item.id: item for item in sampler.drawn}
    trajectories = {key: _trajectory(item, rows.get(key)) for key, item in drawn.items()}
    rounds = solution.rounds if solution else _rounds(sampler.drawn)
    shown = {key for done in rounds for key in done.trajectories}
    last = [drawn[key].error for key in rounds[-1].trajectories] if rounds else []
    others = [drawn[key].error for key in drawn.keys() - shown]  # those of judges and summarisers
    if error is None and solution and not solution.answers and (all(last) or (others and all(others))):
        error = solution.reason
    answers = solution.answers if solution and error is None else ()
    trajectories |= {answer.id: answer for answer in answers}  # a strategy may have completed a probe's text
    final = answers[0] if answers else None
    reason = f"failed: {error}" if error is not None or solution is None else f"no answer: {solution.reason}"
    first = [trajectory for key, trajectory in trajectories.items() if drawn[key].first]
    first.sort(key=lambda trajectory: (trajectory.index, trajectory.id))  # not by arrival: the line stays the same
    graded = await grade_episode(
        problem, answers=answers, reason=reason, failed=error is not None, first=first, grader=grader
    )
    return {
        "request_id": problem.id,
        "repeat": repeat,
        "group": problem.group,
        "final_response": final.content if final else "",
        "final_reasoning_content": final.completion.reasoning if final else "",
        "round_responses": [[_response(trajectories[key]) for key in done.trajectories] for done in rounds],
        "problem": problem.messages,
        "ground_truth": truth_of(problem),
        "answers": [answer.id for answer in answers],
        "reason": reason if final is None else "",
        "messages": [[asdict(message) for message in done.messages] for done in rounds],
        "trajectories": [[_facts(trajectories[key], drawn[key]) for key in done.trajectories] for done in rounds],
        "others": [
            {**_facts(trajectories[key], drawn[key]), **_response(trajectories[key])}
            for key in drawn
            if key not in shown
        ],
        "compaction": await passed_on(rounds, trajectories, grader) if solution else [],
        "notes": list(solution.notes) if solution else [],
        "claim": sampler.claimed,
        "tokens": {**asdict(sampler.account), "ttc": sampler.account.ttc},
        **graded,
        "error": error,
    }


def truth_of(problem: Problem) -> dict[str, str | None] | None:
    """What a line keeps of the ground truth: the answer, and a digest of the reference (megabytes of tests)."""
    if not problem.gradable:
        return None
    if not problem.reference:
        return {"answer": problem.answer}
    known = getattr(problem.reference, "digest", None)  # tests that are unpacked lazily have their own
    return {"answer": problem.answer, "reference": known or digest(dict(problem.reference))}


async def grade_episode(
    problem: Problem,
    *,
    answers: Sequence[Trajectory],
    reason: str,
    failed: bool,
    first: Sequence[Trajectory],
    grader: Grader,
) -> dict[str, Any]:
    """A line's keys that depend on the grader: final_answer, grade, samples (the first round), baselines, judge_tokens.

    answers: the strategy's answers; if there are none, `reason` says why. first: the trajectories of the first round.
    """
    finals = [await grader.grade(problem, trajectory) for trajectory in answers]
    if finals:
        grade = _mean_grade(finals)
    else:
        grade = Grade(score=0.0 if problem.gradable and not failed else None, reason=reason)
    samples = await _samples(problem, first, grader)
    grades = [*finals, *samples.grades]
    return {
        "final_answer": grade.answer,
        "grade": {
            "score": grade.score,
            "reason": grade.reason,
            "warnings": list(grade.warnings),
            "details": dict(grade.details),
        },
        "samples": [
            {"id": trajectory.id, "score": each.score, "class": name, "warnings": list(each.warnings)}
            for trajectory, each, name in zip(first, samples.grades, samples.classes, strict=False)
        ],
        "baselines": _baselines(samples),
        "judge_tokens": sum(each.tokens for each in grades),
    }


def trajectories_of(line: Mapping[str, Any]) -> dict[str, Trajectory]:
    """The trajectories of a line's rounds, by id, for grading them again."""
    found = {}
    for texts, facts in zip(line["round_responses"], line["trajectories"], strict=True):
        for text, fact in zip(texts, facts, strict=True):
            completion = Completion(
                content=text["content"],
                reasoning=text["reasoning_content"],
                finish_reason=fact["finish_reason"],
                generated_tokens=fact["tokens"],
                counted=fact["counted"],
                mean_logprob=fact["mean_logprob"],
            )
            found[fact["id"]] = Trajectory(
                id=fact["id"], index=fact["index"], completion=completion, error=fact["error"]
            )
    return found


@dataclass(kw_only=True)
class _Samples:
    """The graded first round; with a costly grader, only its first trajectory."""

    trajectories: Sequence[Trajectory]
    grades: list[Grade] = field(default_factory=list)
    classes: list[int | None] = field(default_factory=list)
    comparable: bool


async def _samples(problem: Problem, first: Sequence[Trajectory], grader: Grader) -> _Samples:
    if getattr(grader, "costly", False):
        first = first[:1]
    comparable = getattr(grader, "comparable", True) and len(first) > 1
    samples = _Samples(trajectories=first, comparable=comparable)
    samples.grades = [await grader.grade(problem, trajectory) for trajectory in first]
    answers = [grader.extract(trajectory) for trajectory in first]
    samples.classes = await grader.classes(answers) if comparable else [None] * len(first)
    return samples


def _baselines(samples: _Samples) -> dict[str, Any]:
    """Scores and costs of one sample and of a majority vote in the first round; a tie scores its classes' mean."""
    if not samples.trajectories:
        return {}
    scores = [grade.score for grade in samples.grades]
    tokens = [trajectory.completion.generated_tokens for trajectory in samples.trajectories]
    graded = [score for score in scores if score is not None]
    mean_tokens = statistics.fmean(tokens)
    single = statistics.fmean(graded) if graded else None
    baselines = {"single": {"k": 1, "score": single, "ttc": mean_tokens, "critical_path": mean_tokens}}
    if samples.comparable:
        best = winners(samples.classes)
        vote = _mean_if_all([scores[place] for place in best])
        if not best and graded:
            vote = 0.0  # samples were graded, but none has a valid answer
        costs = {"ttc": float(sum(tokens)), "critical_path": float(max(tokens))}
        baselines["majority_vote"] = {"k": len(scores), "score": vote, **costs}
    return baselines


def _mean_grade(grades: Sequence[Grade]) -> Grade:
    """The mean over tied answers; ungraded if one of them is."""
    if len(grades) == 1:
        return grades[0]
    score = _mean_if_all([grade.score for grade in grades])
    if score is None:
        return next(grade for grade in grades if grade.score is None)
    warnings = tuple(dict.fromkeys(warning for grade in grades for warning in grade.warnings))
    return Grade(
        score=score, answer=grades[0].answer, reason=f"mean over {len(grades)} tied answers", warnings=warnings
    )


def _mean_if_all(scores: Sequence[float | None]) -> float | None:
    graded = [score for score in scores if score is not None]
    return statistics.fmean(graded) if graded and len(graded) == len(scores) else None


def _trajectory(item: Sampled, row: Stored | None) -> Trajectory:
    """row: None if the store does not hold the trajectory."""
    completion = row.completion if row else Completion(content="", finish_reason="error")
    return Trajectory(id=item.id, index=item.index, completion=completion, error=item.error)


def _rounds(drawn: Sequence[Sampled]) -> tuple[Round, ...]:
    """The rounds of an episode that failed midway: its trajectories so far, by round."""
    numbers = sorted({item.round for item in drawn})
    ids = [tuple(item.id for item in drawn if item.round == number) for number in numbers]
    return tuple(Round(trajectories=trajectories, messages=()) for trajectories in ids)


def _response(trajectory: Trajectory) -> dict[str, str]:
    return {"content": trajectory.content, "reasoning_content": trajectory.completion.reasoning}


def _facts(trajectory: Trajectory, item: Sampled) -> dict[str, Any]:
    done = trajectory.completion
    return {
        "id": trajectory.id,
        "index": trajectory.index,
        "round": item.round,
        "finish_reason": done.finish_reason,
        "error": trajectory.error,
        "tokens": done.generated_tokens,
        "counted": done.counted,
        "reused": item.reused,
        "clamped": done.clamped,
        "mean_logprob": done.mean_logprob,
        "role": item.role,
    }
