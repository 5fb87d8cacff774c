"""Contest mathematics with final answers: AIME, HMMT and Apex as MathArena publishes them, and IMO-AnswerBench.

The report does not print its prompts for these sets. The instructions for the first three are MathArena's
(github.com/eth-sri/matharena, configs/competitions), placed before the problem as MathArena does. IMO-AnswerBench has
no instruction of its own and gets the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pacore_lab.problems.benchmark import Benchmark, user
from pacore_lab.problems.rows import Row
from pacore_lab.problems.tables import Source
from pacore_lab.types import Problem, Prompt

BOXED = r"Put your final answer within \boxed{}."
AIME = BOXED + "\nThe answer is an integer between 0 and 999 inclusive."


@dataclass(frozen=True, kw_only=True)
class _Contest(Benchmark):
    """instruction: precedes the problem, after it an empty line; "" sends the problem alone."""

    instruction: str = BOXED

    def _asked(self, problem: str) -> Prompt:
        return user(f"{self.instruction}\n\n{problem}" if self.instruction else problem)


@dataclass(frozen=True, kw_only=True)
class AIME2025(_Contest):
    """American Invitational Mathematics Examination 2025, I and II: 30 problems, answers 0 to 999.

    Source: MathArena/aime_2025 on the hub, split train; CC BY-NC-SA 4.0. Columns: problem_idx, problem, answer.
    Revision: the commit that several public evaluation projects pin; we did not fetch it.
    """

    revision: str | None = "c94da77eb22bbd6439e62a323bec18493a421302"
    instruction: str = AIME
    columns: ClassVar = ("problem_idx", "problem", "answer")

    @property
    def source(self) -> Source:
        return Source(id="MathArena/aime_2025", files="train*")

    def problem(self, row: Row) -> Problem:
        return Problem(
            id=f"aime_2025-{row.text('problem_idx')}",
            messages=self._asked(row.text("problem")),
            answer=row.text("answer"),
        )


@dataclass(frozen=True, kw_only=True)
class HMMTFeb2025(_Contest):
    """Harvard-MIT Mathematics Tournament, February 2025: 30 problems, answers in LaTeX.

    Source: MathArena/hmmt_feb_2025 on the hub, split train; CC BY-NC-SA 4.0. Columns: problem_idx, problem, answer,
    problem_type (a list, joined to the group). Revision: the commit that OpenCompass and scitix/sieval pin; we did not
    fetch it.
    """

    revision: str | None = "6fdc4277120810ff75aa22d2d5489b91f7a262a1"
    columns: ClassVar = ("problem_idx", "problem", "answer", "problem_type")

    @property
    def source(self) -> Source:
        return Source(id="MathArena/hmmt_feb_2025", files="train*")

    def problem(self, row: Row) -> Problem:
        kinds = row["problem_type"]
        return Problem(
            id=f"hmmt_feb_2025-{row.text('problem_idx')}",
            messages=self._asked(row.text("problem")),
            answer=row.text("answer"),
            group=", ".join(map(str, kinds)) if isinstance(kinds, list) else kinds and str(kinds),
        )


@dataclass(frozen=True, kw_only=True)
class Apex2025(_Contest):
    """MathArena Apex 2025: problems from that year's contests that models fail; 12 now, 9 at release.

    Source: MathArena/apex_2025 on the hub, split train; CC BY-NC-SA 4.0. Columns: problem_idx, problem, answer, source
    (the contest, which is the group). Revision: the commit that NVIDIA's NeMo Gym and scitix/sieval pin, with 12
    problems; we did not fetch it. The report does not say which of the two versions it used.
    """

    revision: str | None = "ac8a641db12cc87be39e61ea89f2e04c80c5f2e7"
    columns: ClassVar = ("problem_idx", "problem", "answer", "source")

    @property
    def source(self) -> Source:
        return Source(id="MathArena/apex_2025", files="train*")

    def problem(self, row: Row) -> Problem:
        return Problem(
            id=f"apex_2025-{row.text('problem_idx')}",
            messages=self._asked(row.text("problem")),
            answer=row.text("answer"),
            group=row.text("source"),
        )


@dataclass(frozen=True, kw_only=True)
class IMOAnswerBench(_Contest):
    """IMO-AnswerBench: 400 olympiad problems with short answers, 100 in each category.

    Source: imobench/answerbench.csv of github.com/google-deepmind/superhuman, where it is published; CC BY 4.0.
    Columns: Problem ID, Problem, Short Answer, Category (the group), Subcategory, Source; the last two are not read.
    version: 1 is the file of October 2025, the only one that the report of January 2026 can have used; 2 is
    answerbench_v2.csv of 12 February 2026, in which the authors corrected 29 problems or answers.
    Revision: the commit of 12 February 2026, checked in a clone; it holds both files.
    """

    revision: str | None = "955558ad67ef24dccd27545c326988bdad1b4471"
    version: int = 1
    columns: ClassVar = ("Problem ID", "Problem", "Short Answer", "Category")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version not in (1, 2):
            raise ValueError(f"problems.version is {self.version!r}; give 1 (October 2025) or 2 (February 2026)")

    @property
    def source(self) -> Source:
        name = {1: "answerbench.csv", 2: "answerbench_v2.csv"}[self.version]
        root = "https://raw.githubusercontent.com/google-deepmind/superhuman/{revision}/imobench/"
        return Source(id=root + name, files=name)

    def problem(self, row: Row) -> Problem:
        return Problem(
            id=row.text("Problem ID"),
            messages=self._asked(row.text("Problem")),
            answer=row.text("Short Answer"),
            group=row.text("Category"),
        )
