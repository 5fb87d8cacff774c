"""`MathGrader` for mathematical answers, and `NoGrader` for runs without grades."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from pacore_lab.grading import clusters
from pacore_lab.grading.answers import last_box, latex
from pacore_lab.grading.cache import Cache
from pacore_lab.grading.doubts import doubts
from pacore_lab.grading.exact import read
from pacore_lab.grading.forms import decide
from pacore_lab.grading.readers import Pool, Ungraded
from pacore_lab.types import Grade, Problem, Trajectory

VERSION = 3
"""Increases with every change that can change a verdict or a class."""


def boxed_answer(trajectory: Trajectory) -> str | None:
    r"""The last `\boxed{...}` of the conclusion, as written; None if there is none.

    A trajectory that failed, or was truncated at its token limit, has no answer. There is no fallback to a line such as
    "the answer is 5": without a box there is no answer.
    """
    return None if trajectory.error or trajectory.truncated else last_box(trajectory.conclusion)


def _number(keys: Sequence[Hashable]) -> list[int | None]:
    """Classes numbered by first appearance; None stays None."""
    seen: dict[Hashable, int] = {}
    return [None if key is None else seen.setdefault(key, len(seen)) for key in keys]


def _version() -> str:
    libraries = ("math-verify", "latex2sympy2_extended", "sympy")
    return ", ".join([f"math {VERSION}", *(f"{name} {importlib.metadata.version(name)}" for name in libraries)])


@lru_cache
def _shared_pool(workers: int, memory_mb: int, timeout: float, cache: str | None) -> Pool:
    """One pool for all graders with the same settings, such as a vote's and the run's."""
    kept = None if cache is None else Cache(cache, _version())
    return Pool(workers=workers, memory_mb=memory_mb, timeout=timeout, cache=kept)


@dataclass(frozen=True, kw_only=True)
class MathGrader:
    r"""Grades the last `\boxed{...}` against the ground truth: exactly where possible, else by math-verify.

    Numbers, quantities, choice letters and words, and tuples, intervals, sets and lists of them, are compared exactly,
    in this process (`pacore_lab.grading.forms` has the rules). Other answers go to math-verify
    (github.com/huggingface/Math-Verify), which compares decimals with roots and the like to six places, in a process
    that is killed when its time is up. Without a verdict the score is None, with the reason, never 0.

    timeout: seconds math-verify may take for one answer.
    workers: processes that run math-verify, each started when first needed.
    memory_mb: address space of each process.
    cache: SQLite file of math-verify's replies, shared by all runs and processes; None for no cache. It holds neither
    timeouts nor failures, which depend on the machine, not on the answer.
    Raises ValueError for arguments out of range.
    """

    timeout: float = 5.0
    workers: int = 1
    memory_mb: int = 1024
    cache: str | None = None
    _pool: Pool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise ValueError(f"grader.timeout is {self.timeout}; give a number of seconds above 0")
        if self.workers < 1:
            raise ValueError(f"grader.workers is {self.workers}; give 1 or more")
        if self.memory_mb < 256:
            raise ValueError(f"grader.memory_mb is {self.memory_mb}; math-verify needs 256 or more")
        if self.cache == "":
            raise ValueError("grader.cache is empty; name a file, or give null for none")
        object.__setattr__(self, "_pool", _shared_pool(self.workers, self.memory_mb, self.timeout, self.cache))

    @property
    def version(self) -> str:
        return _version()

    async def start(self) -> None:
        """Open the cache; workers start when first needed. Raises ConfigError if the cache's file cannot be used."""
        if self._pool.cache is not None:
            await asyncio.to_thread(self._pool.cache.open)

    def extract(self, trajectory: Trajectory) -> str | None:
        return boxed_answer(trajectory)

    async def grade(self, problem: Problem, trajectory: Trajectory) -> Grade:
        """1.0 or 0.0; no answer is 0.0 with a reason; no ground truth, a failed trajectory or no verdict is None.

        Warnings (`pacore_lab.grading.doubts`) never change the score.
        """
        grade = await self._grade(problem, trajectory)
        return replace(grade, warnings=doubts(trajectory, grade.answer, grade.score))

    async def _grade(self, problem: Problem, trajectory: Trajectory) -> Grade:
        answer = self.extract(trajectory)
        if problem.answer is None:
            return Grade(score=None, answer=answer, reason="no ground truth")
        if trajectory.error:
            return Grade(score=None, reason=trajectory.error)
        if trajectory.truncated:
            return Grade(score=0.0, reason="no answer: truncated at max_tokens")
        if answer is None:
            return Grade(score=0.0, reason="no answer: no \\boxed{} in the conclusion")
        verdict = decide(read(problem.answer), read(answer))
        if verdict is None:
            [verdict] = await self._pool.ask([("equal", latex(problem.answer), latex(answer), False)])
            if isinstance(verdict, Ungraded):
                return Grade(score=None, answer=answer, reason=f"ungraded: {verdict}")
        return Grade(score=float(verdict), answer=answer)

    async def classes(self, answers: Sequence[str | None]) -> list[int | None]:
        """Equivalence classes, independent of the order of the answers; see `pacore_lab.grading.clusters`."""
        forms = {answer: read(answer) for answer in dict.fromkeys(answers) if answer is not None}
        keys = await clusters.keys(forms.values(), self._pool)
        return _number([None if answer is None else keys[forms[answer]] for answer in answers])

    async def close(self) -> None:
        """End the workers. Safe to call twice; grading again starts new ones."""
        await asyncio.to_thread(self._pool.close)


@dataclass(frozen=True, kw_only=True)
class NoGrader:
    """Leaves everything ungraded, for runs without ground truth. Answers are the last boxes, classed by exact text."""

    version = "none"

    async def start(self) -> None:
        pass

    def extract(self, trajectory: Trajectory) -> str | None:
        return boxed_answer(trajectory)

    async def classes(self, answers: Sequence[str | None]) -> list[int | None]:
        return _number(answers)

    async def grade(self, problem: Problem, trajectory: Trajectory) -> Grade:
        return Grade(score=None, answer=self.extract(trajectory), reason=trajectory.error or "ungraded: grader is none")

    async def close(self) -> None:
        pass
