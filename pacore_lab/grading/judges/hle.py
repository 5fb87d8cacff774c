"""Humanity's Last Exam (arXiv 2501.14249): the benchmark's own judge, and the stated confidences it extracts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.grading.exact import read
from pacore_lab.grading.judges.judge import (
    TEXT,
    Fields,
    Judge,
    fields_of,
    filled,
    judged_text,
    no_answer,
    question_of,
    yes_or_no,
)
from pacore_lab.types import Grade, Problem, Trajectory

# The benchmark's prompt, byte for byte: github.com/centerforaisafety/hle, hle_eval/run_judge_results.py (MIT licence).
PROMPT = r"""Judge whether the following [response] to [question] is correct or not based on the precise and unambiguous [correct_answer] below.

[question]: {question}

[response]: {response}

Your judgement must be in the format and criteria specified below:

extracted_final_answer: The final exact answer extracted from the [response]. Put the extracted answer as 'None' if there is no exact, final answer to extract from the response.

[correct_answer]: {correct_answer}

reasoning: Explain why the extracted_final_answer is correct or incorrect based on [correct_answer], focusing only on if there are meaningful differences between [correct_answer] and the extracted_final_answer. Do not comment on any background to the problem, do not attempt to solve the problem, do not argue for any answer different than [correct_answer], focus only on whether the answers match.

correct: Answer 'yes' if extracted_final_answer matches the [correct_answer] given above, or is within a small margin of error for numerical problems. Answer 'no' otherwise, i.e. if there if there is any inconsistency, ambiguity, non-equivalency, or if the extracted answer is incorrect.


confidence: The extracted confidence score between 0|\%| and 100|\%| from [response]. Put 100 if there is no confidence score available."""  # noqa: E501

FIELDS: Fields = {
    "extracted_final_answer": TEXT,
    "reasoning": TEXT,
    "correct": {"type": "string", "enum": ["yes", "no"]},
    "confidence": {"type": "integer", "minimum": 0, "maximum": 100},
}
_ANSWER = re.compile(
    r"^[ \t*_`#>-]{0,20}(?:exact |final ){0,2}answer[*_`]{0,3}[ \t]*:[ \t]*(\S.*)$", re.MULTILINE | re.IGNORECASE
)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)\s*(?:\|?\\?%\|?)?")


@dataclass(frozen=True, kw_only=True)
class HLE:
    """`correct: yes` is 1.0, `no` is 0.0, anything else is ungraded. details: confidence in [0, 1], extracted, verdict.

    The benchmark binds its judge to a schema of these fields. So does this grader if the backend can; if not, it reads
    the fields from JSON or lines. Published scores come from one judge (o3-mini); with another judge it is another
    benchmark. For votes, answers are the last `Answer:` lines, alike if their numbers or texts are, without a judge.
    """

    costly = True
    judge: Judge

    @property
    def version(self) -> str:
        return f"hle 1, {self.judge.version}"

    async def start(self) -> None:
        await self.judge.start()

    def extract(self, trajectory: Trajectory) -> str | None:
        text = None if trajectory.error or trajectory.truncated else judged_text(trajectory)
        found = _ANSWER.findall(text or "")
        return found[-1].strip("*_` ") or None if found else None

    async def classes(self, answers: Sequence[str | None]) -> list[int | None]:
        seen: dict[object, int] = {}
        return [None if answer is None else seen.setdefault(read(answer).key, len(seen)) for answer in answers]

    async def grade(self, problem: Problem, trajectory: Trajectory) -> Grade:
        if (nothing := no_answer(problem, trajectory)) is not None:
            return Grade(score=nothing[0], reason=nothing[1])
        question = filled(
            PROMPT,
            question=question_of(problem),
            response=judged_text(trajectory) or "",
            correct_answer=problem.answer or "",
        )
        said = await self.judge.ask(question, FIELDS)
        answer = self.extract(trajectory)
        if said.error:
            return Grade(score=None, answer=answer, reason=f"ungraded: judge: {said.error}", tokens=said.tokens)
        values = fields_of(said.text, ("extracted_final_answer", "correct", "confidence"))
        score = yes_or_no(values.get("correct"))
        percent = _PERCENT.fullmatch(values.get("confidence", "100"))
        confidence = None if percent is None else min(float(percent[1]), 100.0) / 100
        details = {"extracted": values.get("extracted_final_answer"), "confidence": confidence, "verdict": said.text}
        return Grade(
            score=score,
            answer=answer,
            reason="" if score is not None else "ungraded: judge said neither correct: yes nor correct: no",
            details=details,
            tokens=said.tokens,
        )

    async def close(self) -> None:
        await self.judge.close()
