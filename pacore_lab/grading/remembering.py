"""A grader that remembers its answers."""

from __future__ import annotations

from collections.abc import Sequence

from pacore_lab.interfaces import Grader
from pacore_lab.types import Grade, Problem, Trajectory


class Remembering:
    """Asks the wrapped grader each question once; strategies replayed from one store ask it over and over."""

    def __init__(self, grader: Grader) -> None:
        self._grader = grader
        self._extracted: dict[str, str | None] = {}
        self._classes: dict[tuple[str | None, ...], dict[str | None, int | None]] = {}
        self._grades: dict[tuple[str, str, str], Grade] = {}
        self.comparable = getattr(grader, "comparable", True)
        self.costly = getattr(grader, "costly", False)

    @property
    def version(self) -> str:
        return self._grader.version

    async def start(self) -> None:
        await self._grader.start()

    def extract(self, trajectory: Trajectory) -> str | None:
        key = trajectory.id if trajectory.error is None and not trajectory.running else None
        if key is None:
            return self._grader.extract(trajectory)
        if key not in self._extracted:
            self._extracted[key] = self._grader.extract(trajectory)
        return self._extracted[key]

    async def classes(self, answers: Sequence[str | None]) -> list[int | None]:
        distinct = tuple(dict.fromkeys(answers))
        if distinct not in self._classes:
            self._classes[distinct] = dict(zip(distinct, await self._grader.classes(distinct), strict=True))
        found = self._classes[distinct]
        return [found[answer] for answer in answers]

    async def grade(self, problem: Problem, trajectory: Trajectory) -> Grade:
        key = (problem.id, trajectory.id, trajectory.content)
        if key not in self._grades:
            self._grades[key] = await self._grader.grade(problem, trajectory)
        return self._grades[key]

    async def close(self) -> None:
        await self._grader.close()
