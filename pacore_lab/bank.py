"""A store's trajectories in memory, to try policies on: nothing is sampled, nothing is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import zstandard

from pacore_lab.errors import NeverSampled, StoreError
from pacore_lab.interfaces import Capabilities, Grader, OnChunk, Request
from pacore_lab.store import Stored, decode
from pacore_lab.types import Completion, Grade, Problem, Trajectory


class Bank:
    """What a `pacore_lab.store.Store` would answer. Read once, read-only, while others may write to the file.

    fingerprint: of the model and engine whose trajectories are wanted. Raises StoreError for a file that is no store,
    and for one that holds none of theirs.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        decompress = zstandard.ZstdDecompressor().decompress
        try:
            database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
            rows = database.execute("SELECT id, seq, error, body FROM trajectories WHERE fingerprint=?", (fingerprint,))
            self._rows = {
                identity: Stored(id=identity, seq=seq, completion=decode(decompress(body)), error=error)
                for identity, seq, error, body in rows
            }
            database.close()
        except sqlite3.Error as error:
            raise StoreError(f"store={path} cannot be read ({error}); name the store that the run filled") from None
        if not self._rows:
            raise StoreError(f"store={path} holds no trajectory of {fingerprint}; name the store that the run filled")

    def __len__(self) -> int:
        return len(self._rows)

    async def get(self, ids: Iterable[str]) -> dict[str, Stored]:
        return {identity: self._rows[identity] for identity in ids if identity in self._rows}


class Recorded:
    """A backend in name: of the run that filled a bank, and unable to sample. versions: that run's `backend`."""

    def __init__(self, versions: Mapping[str, Any]) -> None:
        known = {item.name: versions[item.name] for item in fields(Capabilities) if item.name in versions}
        self.capabilities = Capabilities(**{**known, "recorded": True})
        self.fingerprint = str(versions["fingerprint"])

    async def start(self) -> None: ...

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        raise NeverSampled("never sampled in this bank")

    async def close(self) -> None: ...


class Remembering:
    """A grader that is asked the same thing once: policies on one bank ask over and over."""

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
