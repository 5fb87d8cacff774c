"""A store's trajectories in memory, for replaying policies: nothing is sampled, nothing is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import zstandard

from pacore_lab.errors import NeverSampled, StoreError
from pacore_lab.interfaces import Capabilities, OnChunk, Request
from pacore_lab.sampling.store import Stored, decode
from pacore_lab.types import Completion


class LoadedStore:
    """Answers as a `Store` would. The file is read once, read-only; other processes may write to it meanwhile.

    fingerprint: the model and engine whose trajectories to load. Raises StoreError for a file that is not a store, and
    for a store that holds none of these trajectories.
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


class ReplayBackend:
    """Stands in for the backend of the run that filled the store: same fingerprint and capabilities, but cannot sample.

    versions: the `backend` entry of that run's versions.json.
    """

    def __init__(self, versions: Mapping[str, Any]) -> None:
        known = {item.name: versions[item.name] for item in fields(Capabilities) if item.name in versions}
        self.capabilities = Capabilities(**{**known, "replay": True})
        self.fingerprint = str(versions["fingerprint"])

    async def start(self) -> None: ...

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        raise NeverSampled("never sampled for this store")

    async def close(self) -> None: ...
