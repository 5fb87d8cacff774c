"""Humanity's Last Exam (arXiv 2501.14249): the questions without an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pacore_lab.problems.benchmark import Benchmark, user
from pacore_lab.problems.rows import Row
from pacore_lab.problems.tables import Source
from pacore_lab.types import Problem

# The benchmark's own words (github.com/centerforaisafety/hle, hle_eval/run_model_predictions.py).
SYSTEM = (
    "Your response should be in the following format:\n"
    "Explanation: {your explanation for your answer choice}\n"
    "Answer: {your chosen answer}\n"
    "Confidence: {your confidence score between 0% and 100% for your answer}"
)


@dataclass(frozen=True, kw_only=True)
class HLEText(Benchmark):
    """HLE, text only: 2158 of 2500 questions.

    system: the benchmark's response format, which its judge expects; the report does not print its own. None omits the
    turn.
    Source: cais/hle on the hub, split test; MIT, gated: accept its terms there, and do not publish the data in plain
    text. Columns: id, question, image (rows with one are left out), answer, answer_type, category (the group),
    raw_subject; the last two and answer_type are in the reference. rationale is not read.
    Revision: the commit that AllenAI's olmo-eval and scitix/sieval pin; we did not fetch it.
    """

    revision: str | None = "5a81a4c7271a2a2a312b9a690f0c2fde837e4c29"
    system: str | None = SYSTEM
    columns: ClassVar = ("id", "question", "image", "answer", "answer_type", "category", "raw_subject")

    @property
    def source(self) -> Source:
        return Source(id="cais/hle", files="test*")

    def problem(self, row: Row) -> Problem | None:
        if row["image"]:
            return None
        return Problem(
            id=row.text("id"),
            messages=user(row.text("question"), self.system),
            answer=row.text("answer"),
            reference={key: row.text(key) for key in ("answer_type", "category", "raw_subject")},
            group=row.text("category"),
        )
