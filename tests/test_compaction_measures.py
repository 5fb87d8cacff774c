"""What a round's messages kept: ratio and answers, against rounds worked by hand, and how that is told."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pacore_lab.analysis import Compacted, Tally, compactions, summarise
from pacore_lab.grading import MathGrader, NoGrader
from pacore_lab.interfaces import Grader
from pacore_lab.results.kept import passed_on
from pacore_lab.showing.report import write_report
from pacore_lab.showing.terminal import print_table
from pacore_lab.types import Completion, Message, Round, Trajectory
from strategies.compaction import AnswerOnly, AnswerSteps, Conclusion, Dedupe, DisagreementDigest, Full
from strategies.election import classified
from tests.doubles import trajectory
from tests.lines import line

LAST = Round(trajectories=(), messages=())


class Counting(NoGrader):
    """Classes are by value of the number, and calls are counted."""

    calls = 0

    async def classes(self, answers: Sequence[str | None]) -> list[int | None]:
        Counting.calls += 1
        seen: dict[float, int] = {}
        return [None if each is None else seen.setdefault(float(each), len(seen)) for each in answers]


class Incomparable(NoGrader):
    comparable = False

    async def classes(self, answers: Sequence[str | None]) -> list[int | None]:
        return [None] * len(answers)


def boxing(*answers: str | None) -> list[Trajectory]:
    """Trajectories a, b, ... of 20 characters that box their answers; None has no box."""
    boxes = ["" if each is None else f" \\boxed{{{each}}}" for each in answers]
    return [trajectory(f"{name}{box}".ljust(20), name=name) for name, box in zip("abcdef", boxes, strict=False)]


async def passed(
    trajectories: Sequence[Trajectory], messages: Sequence[Message], grader: Grader | None = None
) -> dict[str, Any]:
    done = Round.of(trajectories, tuple(messages))
    [found] = await passed_on([done, LAST], {each.id: each for each in trajectories}, grader or Counting())
    return found


async def test_by_hand() -> None:
    ts = [*boxing("7", "7.0", "8", None), trajectory("never counted", name="f", error="failed: no")]
    found = await passed(ts, [Message(text="so \\boxed{7}", sources=("a", "b")), Message(text="dunno", sources=("c",))])
    assert found == {"characters": 80, "passed": 17, "answers": 3, "kept": 2, "majority": 1.0}


async def test_reasoning_that_a_server_split_off_counts_as_text() -> None:
    split = trajectory("", name="a", completion=Completion(content="\\boxed{7}", reasoning="x" * 91))
    found = await passed([split], Conclusion()([split]))
    assert (found["characters"], found["passed"], found["kept"]) == (100, 9, 1)


@pytest.mark.parametrize(
    ("text", "sources", "kept"),
    [
        ("the answer is 7", ("a",), 1),  # no answer of its own: quoted
        ("the answer is **7**.", ("a",), 1),
        ("$7$, then", ("a",), 1),
        ("7.0 it is", ("a", "b"), 2),  # b's spelling of a's answer
        ("\\boxed{8}, though one says 7", ("a",), 0),  # its only source says 7, it says 8
        ("7 or 8: \\boxed{8}", ("a", "c"), 2),  # a digest of several
        ("\\boxed{\\text{x}} and \\boxed{7}, \\boxed{8}", ("a", "c"), 2),
        ("17, 7.5, 7/3, -7, x^7, 7!, 1,7", ("a", "c"), 0),  # parts of other numbers
        ("7", ("c",), 0),  # a is no source of it
        ("", ("a", "b", "c"), 0),
    ],
)
async def test_what_survives(text: str, sources: tuple[str, ...], kept: int) -> None:
    found = await passed(boxing("7", "7.0", "8"), [Message(text=text, sources=sources)])
    assert found["kept"] == kept


async def test_the_majority_survives_through_any_of_its_trajectories() -> None:
    ts = boxing("7", "7", "8", "9")
    assert (await passed(ts, [Message(text="\\boxed{7}", sources=("b",))]))["majority"] == 1.0
    assert (await passed(ts, [Message(text="\\boxed{8}", sources=("c",))]))["majority"] == 0.0
    tie = await passed(boxing("7", "8"), [Message(text="\\boxed{8}", sources=("b",))])
    assert (tie["kept"], tie["majority"]) == (1, 0.5)
    assert (await passed(boxing(None), Conclusion()(boxing(None))))["majority"] is None


async def test_lost_rounds_count_as_zero_and_the_last_round_not_at_all() -> None:
    """A round whose summaries all failed passes nothing on; left out, it would flatter the compaction."""
    ts = boxing("7", "8")
    known = {each.id: each for each in ts}
    rounds = [Round.of(ts), Round.of(ts, Conclusion()(ts)), Round.of(ts, Conclusion()(ts))]
    first, second = await passed_on(rounds, known, Counting())
    assert (first["passed"], first["kept"], first["majority"]) == (0, 0, 0.0)
    assert (second["kept"], second["majority"]) == (2, 1.0)
    assert await passed_on(rounds[:1], known, Counting()) == []


async def test_answers_are_compared_only_where_their_spelling_does_not_settle_it() -> None:
    """Thousands of lines a second are written for tiny models; comparing answers may ask a worker."""
    ts, Counting.calls = boxing("7", "7.0", "8", None), 0
    await passed(ts, Conclusion()(ts))
    await passed(ts, AnswerOnly(grader=NoGrader())(ts[:0]), Incomparable())
    assert Counting.calls == 0
    await passed(ts, [])
    assert Counting.calls == 1


async def test_answers_without_equivalence_survive_as_text() -> None:
    found = await passed(boxing("x", "y"), [Message(text="\\boxed{x}", sources=("a", "b"))], Incomparable())
    assert (found["kept"], found["majority"]) == (1, None)


ANSWERS = st.lists(st.none() | st.sampled_from(["7", "7.0", "8", "-8", "x+1", "\\frac{1}{2}", "0.5"]), max_size=6)
COMPACTIONS = [
    Conclusion(),
    Full(),
    Dedupe(of=Conclusion(), keep_invalid=True),
    DisagreementDigest(shown=1, of=Conclusion()),
    AnswerOnly(grader=NoGrader()),
    AnswerSteps(steps=1, grader=NoGrader()),
]


@given(ANSWERS, st.sampled_from(COMPACTIONS))
async def test_compactions_that_show_every_answer_keep_every_answer(answers: list[str | None], compaction: Any) -> None:
    """A measure that misses an answer in a digest, or one in other words, would blame the wrong compaction."""
    grader = MathGrader()
    ts = await classified(boxing(*answers), grader)
    found = await passed(ts, compaction(ts), grader)
    assert found["kept"] == found["answers"] == sum(answer is not None for answer in answers)
    assert found["majority"] == (1.0 if found["answers"] else None)


# ---- over a run ----


def entry(characters: int, passed: int, answers: int, kept: int, majority: float | None) -> dict[str, Any]:
    return {"characters": characters, "passed": passed, "answers": answers, "kept": kept, "majority": majority}


LINES = [
    line("p0", compaction=[entry(100, 10, 4, 4, 1.0), entry(50, 50, 0, 0, None)]),
    line("p1", compaction=[entry(300, 70, 4, 2, 0.0)]),
    line("p2", error="dead", compaction=[entry(9999, 1, 4, 0, 0.0)]),
]


def test_sums_over_lines() -> None:
    assert compactions(LINES) == [
        Compacted(round=1, episodes=2, ratio=0.2, kept=0.75, majority=0.5),
        Compacted(round=2, episodes=1, ratio=1.0, kept=None, majority=None),
    ]


@pytest.mark.parametrize("lines", [[], [line()], [line(compaction=[entry(100, 0, 4, 0, 0.0)])]])
def test_a_run_without_messages_says_nothing(lines: list[dict[str, Any]]) -> None:
    """Lines of older runs have no such key; a tournament has rounds and no messages."""
    assert compactions(lines) == []


def told(compacted: Sequence[Compacted]) -> str:
    to = Console(file=io.StringIO(), width=200, color_system=None)
    print_table(summarise(LINES, "s"), Tally(), compacted=compacted, console=to)
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def test_one_quiet_line_below_the_table() -> None:
    assert (
        "compaction: round 1 passes on 20.0 % of the characters, 75.0 % of the answers; "
        "round 2 passes on 100.0 % of the characters, – of the answers\n"
    ) in told(compactions(LINES))
    assert "compaction" not in told([])
    ten = [Compacted(round=n, episodes=1, ratio=0.5, kept=0.5, majority=0.5) for n in range(1, 11)]
    assert [f"round {n} passes" in told(ten) for n in (1, 3, 4, 9, 10)] == [True, True, False, False, True]


def test_a_small_table_in_the_report(tmp_path: Path) -> None:
    meta = {"strategy": "s", "model": "m", "problems": "p", "config": "c"}
    page = write_report(tmp_path, summarise(LINES, "s"), meta, iter(LINES)).read_text()
    assert "<td>round 1</td><td>20.0 %</td><td>75.0 %</td><td>50.0 %</td><td>2</td>" in page
    assert "<td>round 2</td><td>100.0 %</td><td>–</td><td>–</td><td>1</td>" in page
    assert "<h2>Compaction</h2>" not in write_report(tmp_path, [*summarise([line()], "s")], meta, [line()]).read_text()
