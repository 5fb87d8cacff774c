"""Asking a model which of several trajectories to keep, and reading its verdict from one fixed line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.interfaces import PromptBuilder, Sampler
from pacore_lab.types import Message, Problem, Round, Solution, Trajectory


def presentable(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The trajectories that can win, in their order: they did not fail and have a conclusion."""
    return [trajectory for trajectory in trajectories if trajectory.conclusion.strip()]


def none_presentable(trajectories: Sequence[Trajectory], rounds: Sequence[Round]) -> Solution:
    """The solution if no trajectory is presentable."""
    why = next((trajectory.error for trajectory in trajectories if trajectory.error), "empty conclusions")
    return Solution(answers=(), rounds=tuple(rounds), reason=f"none of {len(trajectories)} trajectories usable: {why}")


def number_in(verdict: Trajectory, line: re.Pattern[str]) -> tuple[int | None, str]:
    """The number in group 1 of the last match of `line`; None and the reason if there is none.

    Only the text after the verdict's own thinking is read. A truncated one does not count: it may have been quoting.
    """
    if verdict.error:
        return None, "the request failed"
    if verdict.truncated:
        return None, "truncated at max_tokens"
    found = line.findall(verdict.conclusion)
    return (int(found[-1]), "") if found else (None, "no line of the form asked for")


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """note: why `kept` is not a verdict's choice, else "". failed: whether the request failed; None without one."""

    kept: Trajectory
    note: str = ""
    failed: bool | None = None


def chosen(kept: Trajectory, rounds: Sequence[Round], choices: Sequence[Choice]) -> Solution:
    """The solution, with the notes of all `choices`; without an answer if every request for a verdict failed."""
    notes = tuple(choice.note for choice in choices if choice.note)
    asked = [choice.failed for choice in choices if choice.failed is not None]
    if asked and all(asked):
        reason = f"none of {len(asked)} verdicts could be had: the request failed"
        return Solution(answers=(), rounds=tuple(rounds), reason=reason, notes=notes)
    return Solution(answers=(kept,), rounds=tuple(rounds), notes=notes)


@dataclass(frozen=True, kw_only=True)
class Question:
    """Asks a model to choose among candidates. prompt: shows their conclusions as messages, numbered from `first`.

    line: finds the verdict's choice. If a verdict names none of the candidates, the first one is kept, with a note: the
    choice is then as good as a single sample.
    """

    prompt: PromptBuilder
    line: re.Pattern[str]
    first: int

    async def ask(
        self,
        problem: Problem,
        candidates: Sequence[Trajectory],
        sampler: Sampler,
        *,
        role: str,
        max_tokens: int | None,
    ) -> Choice:
        if len(candidates) == 1:
            return Choice(kept=candidates[0])
        shown = [Message(text=candidate.conclusion, sources=(candidate.id,)) for candidate in candidates]
        (verdict,) = await sampler.sample(self.prompt(problem, shown), 1, role=role, max_tokens=max_tokens)
        number, lacking = number_in(verdict, self.line)
        if number is not None and not 0 <= number - self.first < len(candidates):
            number, lacking = None, "it names no candidate"
        if number is None:
            note = f"no verdict, the first candidate was kept: {lacking}"
            return Choice(kept=candidates[0], note=note, failed=verdict.error is not None)
        return Choice(kept=candidates[number - self.first], failed=False)
