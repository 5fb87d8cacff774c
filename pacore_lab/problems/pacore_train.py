"""PaCoRe-Train-8k: the problems the paper trained on (arXiv 2601.05593, section 2.2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pacore_lab.errors import require_count
from pacore_lab.problems.benchmark import Benchmark, conversation
from pacore_lab.problems.rows import Row
from pacore_lab.problems.tables import Source
from pacore_lab.types import Problem


@dataclass(frozen=True, kw_only=True)
class PaCoReTrain8k(Benchmark):
    """The training problems of `stage` 1 (about 3,000) or 2 (about 5,000): mathematics and code.

    Source: stepfun-ai/PaCoRe-Train-8k on the hub, folder stage1 or stage2. We could not see its card; look up the
    licence there. Columns: conversation, ground_truth; responses (the cached messages) is not read. A ground truth that
    is text or a number, or {"answer": ...}, becomes the answer. {"inputs": [...], "outputs": [...], "fn_name": ...} or
    a list of {"input", "output"} becomes the reference's tests. Each may be given as JSON text. We could not see how
    the set really writes the tests of its code problems: a row in any other format is refused.
    Revision: we know of no commit, so one has to be given.
    """

    stage: int = 1
    columns: ClassVar = ("conversation", "ground_truth")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("problems.stage", self.stage)
        if self.stage > 2:
            raise ValueError(f"problems.stage is {self.stage}; give 1 or 2")

    @property
    def source(self) -> Source:
        return Source(id="stepfun-ai/PaCoRe-Train-8k", files=f"stage{self.stage}*")

    def problem(self, row: Row) -> Problem:
        answer, tests = truth(row)
        return Problem(
            id=f"stage{self.stage}-{row.number}",
            messages=conversation(row, "conversation"),
            answer=answer,
            reference=tests,
        )


def truth(row: Row) -> tuple[str | None, Mapping[str, Any]]:
    """The answer, or the tests as a reference: {"tests": [{"input", "output", "testtype"}], "fn_name"}."""
    value = row["ground_truth"]
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = None  # an answer such as \{1, 2\}
        if isinstance(parsed, dict) or (isinstance(parsed, list) and any(isinstance(each, dict) for each in parsed)):
            value = parsed
    if isinstance(value, dict) and value.get("answer") is not None:
        exact = json.loads(row["ground_truth"], parse_float=str) if isinstance(row["ground_truth"], str) else value
        value = exact["answer"]
    if isinstance(value, dict | list):
        return None, _tests(row, value)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        row.refuse("ground_truth is neither an answer nor tests")
    return str(value), {}


def _tests(row: Row, value: Any) -> Mapping[str, Any]:
    fn_name = None
    if isinstance(value, dict):
        fn_name = value.get("fn_name")
        inputs, outputs = value.get("inputs"), value.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            row.refuse("ground_truth is neither an answer nor equally many inputs and outputs")
        value = [{"input": given, "output": wanted} for given, wanted in zip(inputs, outputs, strict=True)]
    if not value or not all(isinstance(each, dict) and {"input", "output"} <= set(each) for each in value):
        row.refuse("ground_truth holds no tests with input and output")
    kind = "functional" if fn_name else "stdin"
    tests = [{"testtype": kind, **{key: _text(each[key]) for key in ("input", "output")}} for each in value]
    return {"tests": tests, "fn_name": fn_name}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
