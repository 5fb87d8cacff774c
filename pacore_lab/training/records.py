"""Problems with their cached messages on disk, in the format of PaCoRe-Train-8k, as JSON lines or parquet.

The published columns are conversation, responses (the cached messages) and ground_truth. Ours are id, scores (one per
response, null for ungraded) and domain. Files without our columns can be read; their messages are then ungraded.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pacore_lab.errors import ConfigError, DataError
from pacore_lab.problems.benchmark import conversation
from pacore_lab.problems.pacore_train import truth
from pacore_lab.problems.rows import Part, Row, encodable, reason
from pacore_lab.types import Problem, Prompt

COLUMNS = ("id", "conversation", "responses", "ground_truth", "scores", "domain")
_PUBLISHED = ("conversation", "responses", "ground_truth")
_GROUP = 64  # records held in memory twice while parquet is read or written


@dataclass(frozen=True, kw_only=True)
class Record:
    """A problem x and its pool of cached messages.

    scores: one per response, in [0, 1], None for ungraded. A record has either an answer or a reference: the answer as
    text (math), or {"tests": [{"input", "output", "testtype"}, ...], "fn_name"} (code).
    Raises ValueError for anything else.
    """

    id: str
    conversation: Prompt
    responses: tuple[str, ...]
    scores: tuple[float | None, ...]
    answer: str | None = None
    reference: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.responses):
            raise ValueError(f"record {self.id!r} has {len(self.scores)} scores for {len(self.responses)} responses")
        if not all(score is None or 0 <= score <= 1 for score in self.scores):
            raise ValueError(f"record {self.id!r} has scores outside [0, 1]")
        if (self.answer is None) != bool(self.reference) or (self.reference and "tests" not in self.reference):
            raise ValueError(f"record {self.id!r} needs an answer or tests, and not both")

    @property
    def domain(self) -> Literal["math", "code"]:
        return "code" if self.reference else "math"

    @property
    def accuracy(self) -> float | None:
        """Mean message accuracy; None unless there are messages and all of them are graded."""
        graded = [score for score in self.scores if score is not None]
        return statistics.fmean(graded) if graded and len(graded) == len(self.scores) else None

    @property
    def problem(self) -> Problem:
        return Problem(id=self.id, messages=self.conversation, answer=self.answer, reference=self.reference)


def read_records(path: Path) -> list[Record]:
    """The records of a .jsonl or .parquet file, with unique ids; a record without an id is called FILE-NUMBER.

    Raises DataError: one line with the file and line or row, and what is wrong there.
    """
    rows = {".jsonl": _lines, ".parquet": _parquet}.get(path.suffix)
    if rows is None:
        raise DataError(f"{path}: not a .jsonl or .parquet file; name one of these")
    records: list[Record] = []
    first: dict[str, str] = {}
    try:
        for row in rows(path):
            record = _record(row, f"{path.stem}-{row.number}")
            if record.id in first:
                row.refuse(f"id {record.id!r} is already used at {first[record.id]}; each record needs its own")
            first[record.id] = row.where
            records.append(record)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or reason(error)}; name a readable file") from None
    if not records:
        raise DataError(f"{path}: holds no records")
    return records


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a .jsonl or .parquet file, completely or not at all.

    Raises ConfigError if it cannot be written, DataError for a record that the format cannot hold.
    """
    write = {".jsonl": _write_lines, ".parquet": _write_parquet}.get(path.suffix)
    if write is None:
        raise ConfigError(f"{path} is neither .jsonl nor .parquet; give it one of these endings")
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(draft, (_checked(record) for record in records))
        os.replace(draft, path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror or reason(error)}); name another file") from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def reads_back(record: Record) -> bool:
    """Whether it would be read back unchanged: plain turns, the last a user's, whole characters, tests of one kind."""
    values = json.loads(json.dumps(_fields(record)), parse_float=str)
    try:
        return _record(_row(0, repr(record.id), values), record.id) == record
    except DataError:
        return False


def _checked(record: Record) -> dict[str, Any]:
    if not reads_back(record):
        raise DataError(
            f"record {record.id!r} does not fit the format: turns of plain text, the last a user's, whole characters, "
            "and an answer or tests of one kind"
        )
    return _fields(record)


def _fields(record: Record) -> dict[str, Any]:
    """The values by column. An answer is inside an object: a bare one that looks like JSON could pass for tests."""
    tests = record.reference.get("tests", ())
    ground_truth: dict[str, Any] = {"answer": record.answer}
    if record.reference:
        ground_truth = {
            "inputs": [test["input"] for test in tests],
            "outputs": [test["output"] for test in tests],
            "fn_name": record.reference.get("fn_name"),
        }
    return {
        "id": record.id,
        "conversation": [dict(turn) for turn in record.conversation],
        "responses": list(record.responses),
        "ground_truth": ground_truth,
        "scores": list(record.scores),
        "domain": record.domain,
    }


def _record(row: Row, name: str) -> Record:
    """name: for a row without an id. `domain` is for other readers; here it follows from the ground truth."""
    answer, reference = truth(row)
    responses = row.json("responses")
    if not isinstance(responses, list) or not all(isinstance(each, str) for each in responses):
        row.refuse("responses is not a list of texts")
    for place, text in enumerate(responses):
        if not encodable(text):
            row.refuse(f"responses[{place}] holds half of a surrogate pair; write the whole character")
    return Record(
        id=name if row["id"] is None else row.text("id"),
        conversation=conversation(row, "conversation"),
        responses=tuple(responses),
        scores=_scores(row, len(responses)),
        answer=answer,
        reference=reference,
    )


def _scores(row: Row, count: int) -> tuple[float | None, ...]:
    if row["scores"] is None:
        return (None,) * count
    values = row.json("scores")
    if not isinstance(values, list) or len(values) != count:
        row.refuse(f"scores is not a list of {count}, one per response")
    return tuple(None if value is None else _score(row, value) for value in values)


def _score(row: Row, value: Any) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        score = -1.0
    if isinstance(value, bool) or not 0 <= score <= 1:
        row.refuse("scores holds a value that is neither null nor a number in [0, 1]")
    return score


class _One(Part):
    """A record as it was parsed, as a part, because a row belongs to one."""

    columns = COLUMNS

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        super().__init__(name)
        self._values = values

    def indices(self) -> Iterator[int]:
        return iter((0,))

    def _read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        return {column: self._values.get(column) for column in columns}


def _row(number: int, where: str, values: Any) -> Row:
    """Raises DataError for a record without the published columns."""
    if not isinstance(values, dict):
        raise DataError(f"{where}: a JSON {type(values).__name__}, not an object")
    if missing := [column for column in _PUBLISHED if column not in values]:
        raise DataError(f"{where}: there is no column {missing[0]!r}; {', '.join(_PUBLISHED)} are needed")
    part = _One(where, values)
    return Row(number=number, where=where, values=part.read(0, COLUMNS), part=part, index=0)


def _lines(path: Path) -> Iterator[Row]:
    """Blank lines are skipped; numbers keep the digits they were written with."""
    count = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if not text:
                    continue
                values = json.loads(text, parse_float=str)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not a line of JSON ({str(error).partition(';')[0][:200]})") from None
            yield _row(count, where, values)
            count += 1


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            there = [column for column in COLUMNS if column in file.schema_arrow.names]
            number = 0
            for batch in file.iter_batches(batch_size=_GROUP, columns=there):
                for values in batch.to_pylist():
                    yield _row(number, f"{path}: row {number + 1}", values)
                    number += 1
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable parquet file ({reason(error)})") from None


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Writes the ground truth as JSON text: a parquet column has one type, and problems have answers or tests."""
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.string()
    turns = pyarrow.list_(pyarrow.struct([("role", text), ("content", text)]))
    kinds = (text, turns, pyarrow.list_(text), text, pyarrow.list_(pyarrow.float64()), text)
    schema = pyarrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, _GROUP)):
            told = [{**row, "ground_truth": json.dumps(row["ground_truth"])} for row in group]
            writer.write_table(pyarrow.Table.from_pylist(told, schema=schema))
