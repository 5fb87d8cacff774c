"""Asking a model which of several trajectories to keep, and reading its verdict from one fixed line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.interfaces import PromptBuilder, Sampler
from pacore_lab.types import Message, Problem, Round, Solution, Trajectory


def presentable(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Those that can win: neither failed nor without a conclusion, in their order."""
    return [trajectory for trajectory in trajectories if trajectory.conclusion.strip()]


def none_presentable(trajectories: Sequence[Trajectory], rounds: Sequence[Round]) -> Solution:
    """The end where `presentable` leaves nothing."""
    why = next((trajectory.error for trajectory in trajectories if trajectory.error), "empty conclusions")
    return Solution(answers=(), rounds=tuple(rounds), reason=f"none of {len(trajectories)} trajectories usable: {why}")


def number_in(verdict: Trajectory, line: re.Pattern[str]) -> tuple[int | None, str]:
    """The number that group 1 of `line` finds, the last one counts; None with the reason where there is none.

    Only the text after the verdict's own thinking is read. A truncated verdict is none: it may have been quoting.
    """
    if verdict.error:
        return None, "the request failed"
    if verdict.truncated:
        return None, "truncated at max_tokens"
    found = line.findall(verdict.conclusion)
    return (int(found[-1]), "") if found else (None, "no line of the form asked for")


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """note: why `kept` is not what a verdict says, else "". failed: that the request did; None where none was made."""

    kept: Trajectory
    note: str = ""
    failed: bool | None = None


def chosen(kept: Trajectory, rounds: Sequence[Round], choices: Sequence[Choice]) -> Solution:
    """The end: what `choices` came to; no answer where none of the verdicts asked for could be had."""
    notes = tuple(choice.note for choice in choices if choice.note)
    asked = [choice.failed for choice in choices if choice.failed is not None]
    if asked and all(asked):
        reason = f"none of {len(asked)} verdicts could be had: the request failed"
        return Solution(answers=(), rounds=tuple(rounds), reason=reason, notes=notes)
    return Solution(answers=(kept,), rounds=tuple(rounds), notes=notes)


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which of these? prompt: puts it, with the conclusions as messages, numbered from `first`.

    line: how the verdict names its choice. A verdict that names none of the candidates keeps the first of them, with a
    note, so that the choice is then as good as a single sample.
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
