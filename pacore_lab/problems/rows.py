"""Files of rows, each read through Hugging Face's `datasets`, with values as written.

`datasets` guesses the types in JSON and CSV, which turns 007 into 7 and 3.10 into 3.1, so those files are read as text
and parsed here. Parquet states its types. Nothing in the data is ever executed.
"""

from __future__ import annotations

import csv
import glob
import io
import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pacore_lab.errors import DataError

KINDS = (".parquet", ".jsonl", ".json", ".csv")


@dataclass(frozen=True, kw_only=True)
class Row:
    """The values of one row by column. where: names the row in errors. number: counts the table's rows from 0."""

    number: int
    where: str
    values: dict[str, Any]
    part: Part
    index: int

    def __getitem__(self, column: str) -> Any:
        return self.values[column]

    def later(self, column: str) -> Any:
        """A value that was not read with the row, read now: for columns of many megabytes."""
        return self.part.read(self.index, [column])[column]

    def text(self, column: str) -> str:
        """Text or a whole number, as text. Raises DataError for any other value and for empty text."""
        value = self[column]
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            self.refuse(f"{column} is {_short(value)}; give a text that is not empty")
        if not encodable(str(value)):
            self.refuse(f"{column} holds half of a surrogate pair; write the whole character")
        return str(value)

    def json(self, column: str) -> Any:
        """The value, parsed if it is JSON text: CSV delivers nested columns as JSON."""
        value = self[column]
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            self.refuse(f"{column} is not JSON: {_short(value)}")

    def refuse(self, problem: str) -> NoReturn:
        raise DataError(f"{self.where}: {problem}")


class Part:
    """One file. columns: None if each row has its own."""

    columns: Sequence[str] | None

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def indices(self) -> Iterator[int]: ...

    @abstractmethod
    def _read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        """Raises ValueError for a value that cannot be read."""

    def where(self, index: int) -> str:
        return f"{self.name}: row {index + 1}"

    def read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        try:
            return self._read(index, columns)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.where(index)}: {reason(error)}") from None


class _Parquet(Part):
    def __init__(self, name: str, path: Path, needed: Sequence[str]) -> None:
        super().__init__(name)
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]

        try:
            self.columns = list(pyarrow.parquet.read_schema(path).names)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{name}: not a parquet file ({reason(error)})") from None
        _require(name, self.columns, needed)
        self._data = _load("parquet", name, glob.escape(str(path)), columns=list(needed)).data

    def indices(self) -> Iterator[int]:
        return iter(range(self._data.num_rows))

    def _read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        return {column: self._data.column(column)[index].as_py() for column in columns}


class _Lines(Part):
    """JSON lines; blank lines are skipped."""

    columns = None

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name)
        self._lines = _load("text", name, glob.escape(str(path))).data.column("text")

    def where(self, index: int) -> str:
        return f"{self.name}:{index + 1}"

    def indices(self) -> Iterator[int]:
        return (index for index, line in enumerate(self._lines) if line.as_py().strip("\ufeff \t\r"))

    def _read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        record = json.loads(self._lines[index].as_py().lstrip("\ufeff"), parse_float=str)
        return _pick(record, columns)


class Document(Part):
    """A whole CSV file, or a JSON list of objects."""

    def __init__(self, name: str, location: str, needed: Sequence[str]) -> None:
        super().__init__(name)
        text = _load("text", name, location, sample_by="document").data.column("text")[0].as_py().lstrip("\ufeff")
        self.columns: Sequence[str] | None = None
        if name.endswith(".csv"):
            csv.field_size_limit(2**31 - 1)  # a problem's tests exceed the module's 128 KiB
            try:
                reader = csv.DictReader(io.StringIO(text, newline=""))
                self._records: list[Any] = list(reader)
            except csv.Error as error:
                raise DataError(f"{name}:{reader.line_num}: not CSV ({error})") from None
            self.columns = reader.fieldnames or []
            _require(name, self.columns, needed)
        else:
            try:
                records = json.loads(text, parse_float=str)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{name}: not JSON ({reason(error)}); one object per line belongs in .jsonl") from None
            if not isinstance(records, list):
                raise DataError(f"{name}: not a JSON list; write [{{...}}, {{...}}], or one object per line in .jsonl")
            self._records = records

    def indices(self) -> Iterator[int]:
        return iter(range(len(self._records)))

    def _read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        return _pick(self._records[index], columns)


def open_part(name: str, path: Path, needed: Sequence[str]) -> Part:
    try:
        empty = path.stat().st_size == 0
        path.open("rb").close()
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}; set problems.path to a readable copy") from None
    if empty:
        raise DataError(f"{name}: the file is empty")
    if path.suffix == ".parquet":
        return _Parquet(name, path, needed)
    return _Lines(name, path) if path.suffix == ".jsonl" else Document(name, glob.escape(str(path)), needed)


def _load(builder: str, name: str, location: str, **options: Any) -> Any:
    import datasets  # type: ignore[import-untyped]

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(
            builder,
            data_files=[location],
            split="train",
            download_config=datasets.DownloadConfig(max_retries=0),
            **options,
        )
    except Exception as error:  # its own, or from pyarrow, fsspec or the disk
        remedy = "check the network and problems.revision, or give a local copy: problems.path=FILE"
        remedy = remedy if "://" in name else "repair the file, or give another copy as problems.path"
        raise DataError(f"{name}: cannot be read ({reason(error)}); {remedy}") from None


def _require(name: str, there: Sequence[str], needed: Sequence[str]) -> None:
    if missing := [column for column in needed if column not in there]:
        raise DataError(f"{name}: there is no column {missing[0]!r}; the columns are {', '.join(there)}")


def _pick(record: Any, columns: Sequence[str]) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__}, not an object")
    if missing := [column for column in columns if column not in record]:
        raise ValueError(f"there is no column {missing[0]!r}; the columns are {', '.join(map(str, record))[:200]}")
    return {column: record[column] for column in columns}


def reason(error: BaseException) -> str:
    """The first line of the root cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}"[:200] if line else type(error).__name__


def encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
