"""What the published problem sets share: a pinned revision or a local copy, checked columns, unique ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from pacore_lab.errors import DataError
from pacore_lab.problems.rows import Row, encodable
from pacore_lab.problems.tables import Source, open_table
from pacore_lab.types import ChatMessage, Problem, Prompt

_ROLES = ("system", "developer", "user", "assistant")


@dataclass(frozen=True, kw_only=True)
class Benchmark(ABC):
    """A published problem set.

    path: a local copy of the same shape, for machines without a network: a .parquet, .jsonl, .json or .csv file, or a
    folder of them; None reads the published set.
    revision: the published set's commit; ignored if `path` is given.
    origin: the data that was read, set by `load`: id and commit, or the path and a digest of its files.
    """

    path: str | None = None
    revision: str | None = None
    origin: str = field(init=False, default="", compare=False, repr=False)
    columns: ClassVar[tuple[str, ...]]
    """The columns that are read; the data may have others."""
    lazy: ClassVar[tuple[str, ...]] = ()
    """Those of `columns` that are read only when a grader needs them."""

    def __post_init__(self) -> None:
        if self.path is not None and (not isinstance(self.path, str) or not self.path):
            raise ValueError(f"problems.path is {self.path!r}; name a file or a folder, or null for the hub")
        if self.revision is not None and (not isinstance(self.revision, str) or not self.revision):
            raise ValueError(f"problems.revision is {self.revision!r}; give a commit as text")
        if self.path is None and self.revision is None:
            raise ValueError(
                f"problems.revision is not set; name a commit of {self.source.id}, or a local copy: problems.path=PATH"
            )

    @property
    @abstractmethod
    def source(self) -> Source: ...

    @abstractmethod
    def problem(self, row: Row) -> Problem | None:
        """The problem of a row, None for a row that is not part of the set. Raises DataError."""

    def load(self) -> list[Problem]:
        """All problems, with unique ids. Raises DataError, one line: the file and row, or the id, and what is wrong."""
        table = open_table(self.source, needed=self.columns, path=self.path, revision=self.revision)
        problems: list[Problem] = []
        first: dict[str, str] = {}
        count = 0
        for row in table.rows([column for column in self.columns if column not in self.lazy]):
            count += 1
            problem = self.problem(row)
            if problem is None:
                continue
            if problem.id in first:
                row.refuse(f"id {problem.id!r} is already used at {first[problem.id]}; each problem needs its own")
            first[problem.id] = row.where
            problems.append(problem)
        if not problems:
            raise DataError(f"{table.name}: {self.none_of(count)}")
        object.__setattr__(self, "origin", table.origin)
        return problems

    def none_of(self, rows: int) -> str:
        """Why no row became a problem."""
        return "holds no rows" if not rows else f"none of its {rows} rows is a problem of this set"


def conversation(row: Row, column: str) -> Prompt:
    """Turns from a list of {role, content}, or from the two lists that `datasets` before version 4 made of it."""
    turns = row.json(column)
    if isinstance(turns, dict) and {"role", "content"} <= set(turns):
        pairs = zip(turns["role"], turns["content"], strict=False)
        turns = [{"role": role, "content": content} for role, content in pairs]
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        row.refuse(f'{column} is not a list of turns like {{"role": "user", "content": "..."}}')
    for place, turn in enumerate(turns):
        if turn.get("role") not in _ROLES or not isinstance(turn.get("content"), str):
            row.refuse(f"{column}[{place}] needs a text as content and a role of {', '.join(_ROLES)}")
        if not encodable(turn["content"]):
            row.refuse(f"{column}[{place}] holds half of a surrogate pair; write the whole character")
    if turns[-1]["role"] != "user" or not turns[-1]["content"].strip():
        row.refuse(f"{column} does not end with a user's turn that holds text")
    return tuple(ChatMessage(role=turn["role"], content=turn["content"]) for turn in turns)


def user(text: str, system: str | None = None) -> Prompt:
    """A single question, after a system turn if there is one."""
    turns: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    return tuple(cast(list[ChatMessage], [*turns, {"role": "user", "content": text}]))
