"""Answers in a box, and the grade of one against another."""

from pacore_lab.types import Completion, Problem, Trajectory

NESTED = r"\frac{" * 10_000 + "1" + "}{2}" * 10_000


def trajectory(content, error=None, finish_reason="stop"):
    return Trajectory(id="t", index=0, completion=Completion(content=content, finish_reason=finish_reason), error=error)


def problem(answer):
    return Problem(id="p", messages=({"role": "user", "content": "?"},), answer=answer)


async def grade(grader, gold, answer):
    return await grader.grade(problem(gold), trajectory(rf"<think>\boxed{{0}}</think> So \boxed{{{answer}}}."))
