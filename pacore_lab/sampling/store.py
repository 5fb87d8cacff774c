"""The trajectory store: one SQLite file, one writer thread, every trajectory on disk before anyone uses it.

A trajectory's name covers all that determines its distribution and its draw (`SampleName`), so strategies compared
under one seed share trajectories, and a killed run finds its finished ones again. WAL with synchronous=FULL: a commit
survives `kill -9` and power loss. Writes that wait together are committed together.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import zstandard

from pacore_lab.errors import StoreError
from pacore_lab.sampling.names import SampleName
from pacore_lab.types import Completion, Prompt

T = TypeVar("T")
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS prompts (digest TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trajectories (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, error TEXT,
  fingerprint TEXT NOT NULL, prompt TEXT NOT NULL, params TEXT NOT NULL,
  seed INTEGER NOT NULL, problem TEXT NOT NULL, repeat INTEGER NOT NULL, idx INTEGER NOT NULL,
  generated_tokens INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS by_problem ON trajectories (problem, prompt);
CREATE TABLE IF NOT EXISTS users (pid INTEGER PRIMARY KEY, command TEXT NOT NULL);
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A row: the completion and, if it is unusable, the reason (`error`: "failed: ..." or "aborted")."""

    id: str
    seq: int
    completion: Completion
    error: str | None


@dataclass(frozen=True, slots=True)
class _Job:
    run: Callable[[], Any]
    future: asyncio.Future[Any] | None
    writes: bool


_Outcome: TypeAlias = tuple[asyncio.Future[Any] | None, Any, StoreError | None]


class Store:
    """Open it with `await Store.open(path)` and use it from one event loop; one thread does the disk work."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self.path = path
        self._busy_timeout = busy_timeout
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="trajectory-store", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._compress = zstandard.ZstdCompressor(level=3).compress
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._known_prompts: set[str] = set()

    @classmethod
    async def open(cls, path: str | Path, busy_timeout: float = 30.0) -> Store:
        """Raises StoreError: not a store, not writable, or locked for `busy_timeout` seconds (it names the holder)."""
        path = Path(path)
        if path.is_dir():
            raise StoreError(f"store={path} is a folder; name a file, e.g. store={path / 'store.sqlite'}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"store={path}: cannot make its folder ({error.strerror})") from None
        store = cls(path, busy_timeout)
        store._thread.start()
        await store._opened
        return store

    async def get(self, ids: Iterable[str]) -> dict[str, Stored]:
        """The stored trajectories among `ids`, failed and aborted ones included."""
        wanted = list(ids)
        return await self._submit(lambda: self._select(wanted), writes=False)

    async def seqs(self, ids: Iterable[str]) -> dict[str, int]:
        """For each finished trajectory among `ids`, its place in the order of arrival."""
        wanted = list(ids)
        return await self._submit(lambda: self._select_seqs(wanted), writes=False)

    async def put(self, name: SampleName, prompt: Prompt, completion: Completion, error: str | None = None) -> Stored:
        """Store and commit. If another process was first, returns its finished trajectory of that name."""
        return await self._submit(lambda: self._insert(name, prompt, completion, error), writes=True)

    def put_later(self, name: SampleName, prompt: Prompt, completion: Completion, error: str) -> None:
        """As `put`, without waiting: for the text so far of an aborted trajectory."""
        self._jobs.put(_Job(lambda: self._insert(name, prompt, completion, error), None, writes=True))

    async def close(self) -> None:
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _submit(self, run: Callable[[], T], *, writes: bool) -> asyncio.Future[T]:
        if not self._thread.is_alive():
            raise StoreError(f"store={self.path} is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(run, future, writes))
        return future

    # ---- below: the store's own thread ----

    def _serve(self) -> None:
        try:
            self._connect()
        except (sqlite3.Error, OSError, StoreError) as error:
            self._resolve([(self._opened, None, self._explain(error))])
            return
        self._resolve([(self._opened, None, None)])
        stop = False
        while not stop:
            batch = [self._jobs.get()]
            while len(batch) < 32 and not self._jobs.empty():
                batch.append(self._jobs.get())
            stop = None in batch
            self._resolve(self._commit([job for job in batch if job is not None]))
        self._db.execute("DELETE FROM users WHERE pid = ?", (os.getpid(),))
        self._db.close()

    def _commit(self, batch: list[_Job]) -> list[_Outcome]:
        """Run the jobs. Writes share one transaction: when their futures resolve, all are on disk or all failed."""
        writing = any(job.writes for job in batch)
        try:
            if writing:
                self._db.execute("BEGIN IMMEDIATE")
            outcomes: list[_Outcome] = [(job.future, job.run(), None) for job in batch]
            if writing:
                self._db.execute("COMMIT")
        except Exception as error:  # the thread's boundary: every waiting caller gets the error
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._known_prompts.clear()
            return [(job.future, None, self._explain(error)) for job in batch]
        return outcomes

    def _resolve(self, outcomes: list[_Outcome]) -> None:
        def deliver() -> None:
            for future, value, error in outcomes:
                if future is None or future.done():
                    continue
                if error is None:
                    future.set_result(value)
                else:
                    future.set_exception(error)

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(deliver)

    def _connect(self) -> None:
        self._db = sqlite3.connect(self.path, timeout=self._busy_timeout, isolation_level=None)
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if (version, bool(tables)) not in {(0, False), (_SCHEMA_VERSION, True)}:
            raise StoreError(
                f"store={self.path} is a database, but not a trajectory store of this version; name another"
            )
        self._use_wal()
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={_SCHEMA_VERSION}; COMMIT")
        self._db.execute("INSERT OR REPLACE INTO users VALUES (?, ?)", (os.getpid(), " ".join(sys.argv)[:200]))

    def _use_wal(self) -> None:
        """Retry: if two processes create one store at the same moment, SQLite refuses one of them without waiting."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _rows(self, columns: str, ids: list[str]) -> Iterator[Any]:
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            marks = ",".join("?" * len(part))
            yield from self._db.execute(f"SELECT {columns} FROM trajectories WHERE id IN ({marks})", part)

    def _select(self, ids: list[str]) -> dict[str, Stored]:
        return {
            identity: Stored(id=identity, seq=seq, completion=decode(self._decompress(body)), error=error)
            for identity, seq, error, body in self._rows("id, seq, error, body", ids)
        }

    def _select_seqs(self, ids: list[str]) -> dict[str, int]:
        return {identity: seq for identity, seq, error in self._rows("id, seq, error", ids) if error is None}

    def _insert(self, name: SampleName, prompt: Prompt, completion: Completion, error: str | None) -> Stored:
        identity = name.id
        existing = self._db.execute("SELECT seq, error FROM trajectories WHERE id = ?", (identity,)).fetchone()
        if existing is not None and existing[1] is None:
            return self._select([identity])[identity]
        if name.prompt not in self._known_prompts:
            body = self._compress(json.dumps(prompt).encode())
            self._db.execute("INSERT OR IGNORE INTO prompts VALUES (?, ?)", (name.prompt, body))
            self._known_prompts.add(name.prompt)
        values = {key: value for key, value in asdict(completion).items() if value is not None}
        cursor = self._db.execute(
            "INSERT OR REPLACE INTO trajectories VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (identity, error, name.fingerprint, name.prompt, name.params, name.seed, name.problem, name.repeat,
             name.index, completion.generated_tokens, self._compress(json.dumps(values).encode())),
        )  # fmt: skip
        assert cursor.lastrowid is not None
        return Stored(id=identity, seq=cursor.lastrowid, completion=completion, error=error)

    def _explain(self, error: Exception) -> StoreError:
        if isinstance(error, StoreError):
            return error
        text = str(error)
        if "locked" in text or "busy" in text:
            holders = ", ".join(self._other_users()) or "another process"
            text = f"has been locked for {self._busy_timeout:.0f} s by {holders}; wait, or name another store=FILE"
        elif "not a database" in text:
            text = "is not a trajectory store (not an SQLite file); name another store=FILE"
        else:
            text = f"cannot be used ({text}); check the disk and its permissions, or name another store=FILE"
        return StoreError(f"store={self.path} {text}")

    def _other_users(self) -> list[str]:
        try:
            rows = self._db.execute("SELECT pid, command FROM users WHERE pid != ?", (os.getpid(),)).fetchall()
        except (sqlite3.Error, AttributeError):
            return []
        return [f"process {pid} ({command})" for pid, command in rows if _alive(pid)]


def decode(body: bytes) -> Completion:
    """The completion in a row's decompressed body."""
    values = json.loads(body)
    for key in ("window_logprobs", "confidences"):
        if values.get(key) is not None:
            values[key] = tuple(values[key])
    return Completion(**values)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
