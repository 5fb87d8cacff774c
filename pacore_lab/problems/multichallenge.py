"""MultiChallenge (arXiv 2501.17399): the last answer of a conversation, judged by one question per conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pacore_lab.problems.benchmark import Benchmark, conversation
from pacore_lab.problems.rows import Row
from pacore_lab.problems.tables import Source
from pacore_lab.types import Problem


@dataclass(frozen=True, kw_only=True)
class MultiChallenge(Benchmark):
    """MultiChallenge: 266 conversations, sent as they are.

    Source: ScaleAI/MultiChallenge on the hub, split test; CC BY 4.0. Columns: question_id, axis (the group),
    conversation, target_question, pass_criteria ("YES" or "NO"); reference: axis, question, pass_criteria.
    Revision: the commit that added the data file, as recorded in a public review of the set in September 2026. The
    authors revised about 54 tasks in 2026, so the report may have used other texts. We did not fetch it.
    """

    revision: str | None = "9d9e0fd9ef535fb71df41740b2e9e6bdb0aa7ac3"
    columns: ClassVar = ("question_id", "axis", "conversation", "target_question", "pass_criteria")

    @property
    def source(self) -> Source:
        return Source(id="ScaleAI/MultiChallenge", files="test*")

    def problem(self, row: Row) -> Problem:
        criteria = row.text("pass_criteria")
        if criteria.upper() not in ("YES", "NO"):
            row.refuse(f"pass_criteria is {criteria[:40]!r}; give YES or NO")
        return Problem(
            id=row.text("question_id"),
            messages=conversation(row, "conversation"),
            reference={
                "axis": row.text("axis"),
                "question": row.text("target_question"),
                "pass_criteria": criteria.upper(),
            },
            group=row.text("axis"),
        )
