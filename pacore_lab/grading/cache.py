"""A disk cache of math-verify's replies: one SQLite file that several processes can use at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pacore_lab.errors import ConfigError

Question: TypeAlias = tuple[str | bool, ...]
"""("equal", gold, answer, mutual), whose reply is a bool, or ("fingerprint", answer); see `reader_process`."""
BUSY_TIMEOUT = 0.5
"""Seconds to wait for another process; after that, math-verify is asked again."""
OPEN_TIMEOUT = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
  version TEXT NOT NULL, question BLOB NOT NULL, reply TEXT NOT NULL, PRIMARY KEY (version, question)) WITHOUT ROWID
"""
_AT_ONCE = 500


class Cache:
    """Replies by (grader version, question). Once it is open, a fault in the file costs time but never a grade."""

    def __init__(self, path: str, version: str) -> None:
        self.path = path
        self.version = version
        self._connection: sqlite3.Connection | None = None
        self._may_create = False
        self._lock = threading.Lock()

    def open(self) -> None:
        """Open the file, or check that it can be made. The first `put` makes it, so a refused run leaves no file.

        Safe to call twice. Raises ConfigError if the file cannot be used.
        """
        path = Path(self.path)
        with self._lock:
            if self._connection is not None:
                return
            try:
                if path.exists():
                    self._connect()
                elif not (folder := next(p for p in path.absolute().parents if p.exists())).is_dir():
                    raise NotADirectoryError(f"{folder} is a file")
                elif not os.access(folder, os.W_OK):
                    raise PermissionError(f"{folder} cannot be written to")
            except (OSError, ValueError, sqlite3.Error) as error:
                raise ConfigError(
                    f"grader.cache={self.path} cannot be used ({error}); name another file, or grader.cache=null"
                ) from None
            self._may_create = True

    def _connect(self) -> sqlite3.Connection:
        """Raises OSError or sqlite3.Error."""
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=OPEN_TIMEOUT, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            with connection:
                connection.execute(_SCHEMA)
                connection.execute("DELETE FROM replies WHERE version = ''")  # fails if this process may not write
            connection.execute("SELECT version, question, reply FROM replies LIMIT 1")
            connection.execute(f"PRAGMA busy_timeout={int(1000 * BUSY_TIMEOUT)}")
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        return connection

    def get(self, questions: Iterable[Question]) -> dict[Question, Any]:
        """The known replies, by question."""
        named = {_name(question): question for question in questions}
        found: dict[Question, Any] = {}
        names = list(named)
        with self._lock, contextlib.suppress(sqlite3.Error):
            for start in range(0, len(names) if self._connection else 0, _AT_ONCE):
                some = names[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT question, reply FROM replies WHERE version = ? AND question IN ({marks})"
                assert self._connection is not None
                for name, reply in self._connection.execute(query, (self.version, *some)):
                    with contextlib.suppress(ValueError):
                        found[named[name]] = json.loads(reply)
        return found

    def put(self, replies: Mapping[Question, Any]) -> None:
        rows = [(self.version, _name(question), json.dumps(reply)) for question, reply in replies.items()]
        with self._lock, contextlib.suppress(OSError, sqlite3.Error):
            if self._may_create:
                with self._connection or self._connect() as connection:
                    connection.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Safe to call twice; `open` reopens the cache."""
        with self._lock:
            connection, self._connection = self._connection, None
            self._may_create = False
            if connection is not None:
                connection.close()


def _name(question: Question) -> bytes:
    return hashlib.sha256(json.dumps(question).encode()).digest()
