"""MultiChallenge (arXiv 2501.17399): a strict yes/no question about the last turn of a conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.grading.judges.judge import TEXT, Fields, Judge, fields_of, filled, judged_text, no_answer
from pacore_lab.types import Grade, Problem, Trajectory

# The benchmark's prompt, byte for byte: github.com/ekwinox117/multi-challenge, src/evaluator.py.
PROMPT = """You are tasked with evaluating a model response to see if it meets a specific criteria.
The criteria will always be YES/NO evaluation.

The model response is as follows:
<MODEL_RESPONSE>
{response}
</MODEL_RESPONSE>

The criteria that the model response must meet is as follows. Be VERY STRICT!:
<CRITERIA>
{criteria}
</CRITERIA>

Print your reasoning followed by your verdict, either "YES" or "NO"."""

FIELDS: Fields = {"reasoning": TEXT, "verdict": {"type": "string", "enum": ["YES", "NO"]}}
_WORD = re.compile(r"\b(YES|NO)\b")


@dataclass(frozen=True, kw_only=True)
class MultiChallenge:
    """1.0 if the judge's verdict is the problem's pass criterion, 0.0 if it is the other one, else ungraded.

    Reads `question` and `pass_criteria` ("YES" or "NO") of `Problem.reference`. The verdict is the field `verdict`,
    else the last YES or NO in capitals. The benchmark's overall score is the unweighted mean over its four axes, which
    are the problems' groups. Published scores come from one judge (gpt-4o-2024-08-06); with another judge it is another
    benchmark.
    """

    comparable = False
    costly = True
    judge: Judge

    @property
    def version(self) -> str:
        return f"multichallenge 1, {self.judge.version}"

    async def start(self) -> None:
        await self.judge.start()

    def extract(self, trajectory: Trajectory) -> str | None:
        """Always None: a turn of a conversation has no short answer."""
        return None

    async def classes(self, answers: Sequence[str | None]) -> list[int | None]:
        return [None] * len(answers)

    async def grade(self, problem: Problem, trajectory: Trajectory) -> Grade:
        if (nothing := no_answer(problem, trajectory)) is not None:
            return Grade(score=nothing[0], reason=nothing[1])
        wanted = str(problem.reference.get("pass_criteria", "")).upper()
        if "question" not in problem.reference or wanted not in ("YES", "NO"):
            reason = "ungraded: the problem has no question and pass_criteria (YES or NO) for this grader"
            return Grade(score=None, reason=reason)
        text, criteria = judged_text(trajectory) or "", str(problem.reference["question"])
        said = await self.judge.ask(filled(PROMPT, response=text, criteria=criteria), FIELDS)
        if said.error:
            return Grade(score=None, reason=f"ungraded: judge: {said.error}", tokens=said.tokens)
        verdict = fields_of(said.text, ("verdict",)).get("verdict", "").upper().rstrip(".")
        if verdict not in ("YES", "NO"):
            verdict = (_WORD.findall(said.text) or [""])[-1]
        return Grade(
            score=float(verdict == wanted) if verdict else None,
            reason="" if verdict else "ungraded: judge said neither YES nor NO",
            details={"verdict": said.text},
            tokens=said.tokens,
        )

    async def close(self) -> None:
        await self.judge.close()
