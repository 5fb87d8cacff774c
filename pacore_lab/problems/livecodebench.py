"""LiveCodeBench code generation (arXiv 2403.07974): contest problems with tests, selected by contest date."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pacore_lab.errors import DataError
from pacore_lab.problems.benchmark import Benchmark, user
from pacore_lab.problems.packed import cases_of
from pacore_lab.problems.rows import Row
from pacore_lab.problems.tables import Source
from pacore_lab.types import Problem

# The benchmark's own words and layout (github.com/LiveCodeBench/LiveCodeBench, lcb_runner/prompts/code_generation.py).
SYSTEM = (
    "You are an expert Python programmer. You will be given a question (problem specification) and will generate a "
    "correct Python program that matches the specification and passes all tests."
)
_WITH_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters."
)
_WITH_STDIN = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the "
    "inputs, runs the algorithm and writes output to STDOUT."
)


class PackedTests(Mapping[str, Any]):
    """A problem's reference: `tests`, public ones first, as {"input", "output", "testtype"}, and `fn_name` or None.

    The tests are unpacked on every read of `tests` and not kept, since the whole set's tests are gigabytes. Reading
    them raises ValueError, naming the row, if they cannot be unpacked. `digest` is that of the packed texts.
    """

    def __init__(self, row: Row, fn_name: str | None) -> None:
        self._row = row
        self._fn_name = fn_name
        self._digest = ""

    def __getitem__(self, key: str) -> Any:
        if key == "fn_name":
            return self._fn_name
        if key != "tests":
            raise KeyError(key)
        try:
            return [case for packed in self._packed() for case in cases_of(packed)]
        except ValueError as error:
            raise ValueError(f"{self._row.where}: {error}") from None
        except DataError as error:  # graders expect ValueError for bad tests; this already names its row
            raise ValueError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(("tests", "fn_name"))

    def __len__(self) -> int:
        return 2

    @property
    def digest(self) -> str:
        if not self._digest:
            total = hashlib.sha256(repr(self._fn_name).encode())
            for packed in self._packed():
                total.update(hashlib.sha256(packed.encode(errors="surrogatepass")).digest())
            self._digest = total.hexdigest()
        return self._digest

    def _packed(self) -> Iterator[str]:
        yield self._row.text("public_test_cases")
        private = self._row.later("private_test_cases")
        if not isinstance(private, str):
            self._row.refuse("private_test_cases is not a text")
        yield private


@dataclass(frozen=True, kw_only=True)
class LiveCodeBench(Benchmark):
    """LiveCodeBench, contests from `start` to `end`, both days included.

    The default is the report's window 2408-2505: 1 August 2024 to 31 May 2025, 454 of the 1055 problems of release 6
    (the count is from NVIDIA's NeMo Skills). The prompt is the benchmark's generic one with its system turn; the report
    does not print its own. system: None omits that turn.
    Source: livecodebench/code_generation_lite on the hub, test*.jsonl, which together are release_v6, 4.5 GB; CC, with
    no variant on the card. Columns: question_id, question_content, contest_date, starter_code, difficulty (the group),
    public_test_cases, private_test_cases, metadata; question_title, platform and contest_id are not read.
    lighteval/code_generation_lite, config release_v6, has the same rows as parquet: a copy of it works as `path`.
    Revision: the commit that scitix/sieval and others pin; we did not fetch it.
    """

    revision: str | None = "0fe84c3912ea0c4d4a78037083943e8f0c4dd505"
    start: str | None = "2024-08-01"
    end: str | None = "2025-05-31"
    system: str | None = SYSTEM
    columns: ClassVar = (
        "question_id",
        "question_content",
        "contest_date",
        "starter_code",
        "difficulty",
        "public_test_cases",
        "private_test_cases",
        "metadata",
    )
    lazy: ClassVar = ("private_test_cases",)

    def __post_init__(self) -> None:
        super().__post_init__()
        start, end = self._window
        if start > end:
            raise ValueError(f"problems.start is {self.start}, after problems.end, {self.end}; swap them")

    @property
    def source(self) -> Source:
        return Source(id="livecodebench/code_generation_lite", files="test*", count=6)

    def problem(self, row: Row) -> Problem | None:
        start, end = self._window
        if not start <= _contest_day(row) <= end:
            return None
        return Problem(
            id=row.text("question_id"),
            messages=user(_question(row), self.system),
            reference=PackedTests(row, _fn_name(row)),
            group=row.text("difficulty"),
        )

    def none_of(self, rows: int) -> str:
        if not rows:
            return super().none_of(rows)
        return f"none of its {rows} rows is from {self.start} to {self.end}; set problems.start and problems.end"

    @property
    def _window(self) -> tuple[datetime.date, datetime.date]:
        start = datetime.date.min if self.start is None else _day("problems.start", self.start)
        end = datetime.date.max if self.end is None else _day("problems.end", self.end)
        return start, end


def _question(row: Row) -> str:
    text = f"### Question:\n{row.text('question_content')}\n\n"
    if row["starter_code"]:
        text += f"### Format: {_WITH_STARTER}\n```python\n{row.text('starter_code')}\n```\n\n"
    else:
        text += f"### Format: {_WITH_STDIN}\n```python\n# YOUR CODE HERE\n```\n\n"
    return text + "### Answer: (use the provided format with backticks)\n\n"


def _fn_name(row: Row) -> str | None:
    metadata = row.json("metadata")
    if not isinstance(metadata, dict):
        row.refuse("metadata is not a JSON object")
    name = metadata.get("func_name")
    if name is not None and not isinstance(name, str):
        row.refuse("metadata.func_name is not a text")
    return name


def _contest_day(row: Row) -> datetime.date:
    value = row["contest_date"]
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, datetime.date):
        return value
    try:
        return datetime.datetime.fromisoformat(value).date()
    except (TypeError, ValueError):
        row.refuse(f"contest_date is {value!r}; give a date like 2024-08-01T00:00:00")


def _day(key: str, text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except (TypeError, ValueError):
        raise ValueError(f"{key} is {text!r}; give a day like 2024-08-01, or null for no bound") from None
