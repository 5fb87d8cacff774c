"""Judges: what is asked, how a verdict is read, and that no verdict is no grade."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backends.openai import OpenAI
from pacore_lab.errors import EngineDead, LabError, RequestError
from pacore_lab.grading import MathGrader
from pacore_lab.grading.judges import HLE, Judge, JudgedAnswers, MultiChallenge
from pacore_lab.grading.judges.judge import fields_of
from pacore_lab.interfaces import Capabilities, Grader
from pacore_lab.types import Completion, Model, Problem
from tests.asking import closed_port
from tests.doubles import Reply, Scripted, trajectory, user
from tests.waiting import until

QUESTION = Problem(id="q", messages=user("Which {response} is it?"), answer="Paris", group="geography")
TURN = Problem(
    id="c", messages=user("Keep it short."), reference={"question": "Is it short?", "pass_criteria": "NO"}, group="edit"
)
MATH = Problem(id="m", messages=user("Find all n."), answer="n = 2k")


@asynccontextmanager
async def judged(make: Callable[[Judge], Grader], reply: Reply, path: Path) -> AsyncIterator[tuple[Grader, Scripted]]:
    backend = Scripted(reply)
    grader = make(Judge(backend=backend, model=Model(name="judge", temperature=0.0), store=str(path / "v.sqlite")))
    await grader.start()
    try:
        yield grader, backend
    finally:
        await grader.close()


def hle(judge: Judge) -> Grader:
    return HLE(judge=judge)


def challenge(judge: Judge) -> Grader:
    return MultiChallenge(judge=judge)


def answers(judge: Judge) -> Grader:
    return JudgedAnswers(rules=MathGrader(), judge=judge)


async def test_hle_asks_its_own_question_about_the_text_after_the_thinking(tmp_path: Path) -> None:
    """Braces in model text must arrive as they are: the prompt is not a template for them."""
    said = "reasoning: it is {correct_answer}\ncorrect: yes\nconfidence: 85%"
    response = trajectory("<think>Rome?</think>\nExplanation: {question}\nAnswer: Paris\nConfidence: 85%")
    async with judged(hle, lambda request, n: said, tmp_path) as (grader, backend):
        grade = await grader.grade(QUESTION, response)
    asked = str(backend.requests[0].prompt[0]["content"])
    assert "[question]: Which {response} is it?\n\n[response]: Explanation: {question}\nAnswer: Paris\n" in asked
    assert "[correct_answer]: Paris\n" in asked
    assert "Rome" not in asked
    assert asked.endswith("Put 100 if there is no confidence score available.")
    assert (grade.score, grade.answer, grade.details["confidence"]) == (1.0, "Paris", 0.85)
    assert grade.details["verdict"] == said
    assert grade.tokens == len(said)


@pytest.mark.parametrize(
    ("said", "score", "confidence"),
    [
        ("correct: no\nconfidence: 40", 0.0, 0.4),
        ("**correct:** Yes.\n**confidence:** 100%", 1.0, 1.0),
        ('Here:\n```json\n{"extracted_final_answer": "Paris", "correct": "no", "confidence": 70}\n```', 0.0, 0.7),
        ("correct: yes\nOn reflection:\ncorrect: no", 0.0, 1.0),  # the last word counts; no confidence is 100
        ("<think>correct: yes</think>\ncorrect: no\nconfidence: 0", 0.0, 0.0),
        ("correct: no or yes\nconfidence: 30", None, 0.3),
        ("It is right.", None, 1.0),
        ("correct: yes\nconfidence: high", 1.0, None),
    ],
)
async def test_reading_a_verdict(said: str, score: float | None, confidence: float | None, tmp_path: Path) -> None:
    async with judged(hle, lambda request, n: said, tmp_path) as (grader, _):
        grade = await grader.grade(QUESTION, trajectory("Answer: Paris"))
    assert (grade.score, grade.details["confidence"]) == (score, confidence)
    assert (score is None) == ("ungraded" in grade.reason)


async def test_hle_votes_on_its_answer_lines(tmp_path: Path) -> None:
    texts = ["Answer: Paris", "**Exact Answer:** paris", "Answer: 1,000", "Final answer: 1000", "No idea."]
    async with judged(hle, lambda request, n: "", tmp_path) as (grader, backend):
        found = [grader.extract(trajectory(text)) for text in texts]
        assert await grader.classes(found) == [0, 0, 1, 1, None]
    assert not backend.requests


@pytest.mark.parametrize(
    ("said", "score"),
    [("It is long.\nNO", 1.0), ("YES", 0.0), ('{"reasoning": "YES?", "verdict": "NO"}', 1.0), ("Perhaps; no.", None)],
)
async def test_multichallenge_compares_the_verdict_with_the_criterion(
    said: str, score: float | None, tmp_path: Path
) -> None:
    async with judged(challenge, lambda request, n: said, tmp_path) as (grader, backend):
        grade = await grader.grade(TURN, trajectory("<think>...</think>A long text"))
    assert grade.score == score
    asked = str(backend.requests[0].prompt[0]["content"])
    assert "<MODEL_RESPONSE>\nA long text\n</MODEL_RESPONSE>" in asked
    assert "<CRITERIA>\nIs it short?\n</CRITERIA>" in asked


async def test_multichallenge_without_a_criterion_is_ungraded(tmp_path: Path) -> None:
    async with judged(challenge, lambda request, n: "YES", tmp_path) as (grader, backend):
        grade = await grader.grade(Problem(id="c", messages=user("?"), answer="x"), trajectory("text"))
    assert (grade.score, "pass_criteria" in grade.reason, backend.requests) == (None, True, [])


@pytest.mark.parametrize(
    ("gold", "given", "said", "score", "asked"),
    [
        ("7", r"\boxed{7}", "same: no", 1.0, 0),  # rules say equal: nobody is asked
        ("7", r"\boxed{8}", "same: yes", 0.0, 0),  # two numbers: rules suffice
        ("n = 2k", r"\boxed{\text{all even numbers}}", "same: yes", 1.0, 1),
        ("n = 2k", r"\boxed{\text{all odd numbers}}", "same: no", 0.0, 1),
        ("n = 2k", r"\boxed{\text{even ones}}", "hard to say", None, 1),
        ("n = 2k", "all even numbers", "same: yes", 0.0, 0),  # no box, no answer
    ],
)
async def test_a_judge_only_where_rules_leave_it_open(
    gold: str, given: str, said: str, score: float | None, asked: int, tmp_path: Path
) -> None:
    problem = Problem(id="m", messages=user("Find all n."), answer=gold)
    async with judged(answers, lambda request, n: said, tmp_path) as (grader, backend):
        grade = await grader.grade(problem, trajectory(given))
    assert (grade.score, len(backend.requests)) == (score, asked)
    if asked:
        assert grade.details["verdict"] == said


@pytest.mark.parametrize("make", [hle, challenge])
@pytest.mark.parametrize(
    ("text", "score", "reason"),
    [
        ("<think>never ends", 0.0, "nothing after the thinking"),
        ("<think>x</think> ", 0.0, "nothing after the thinking"),
    ],
)
async def test_a_response_without_an_answer_is_wrong_without_a_judge(
    make: Callable[[Judge], Grader], text: str, score: float, reason: str, tmp_path: Path
) -> None:
    problem = QUESTION if make is hle else TURN
    async with judged(make, lambda request, n: "correct: yes\nNO", tmp_path) as (grader, backend):
        grade = await grader.grade(problem, trajectory(text))
        failed = await grader.grade(problem, trajectory(text, error="failed: reset"))
    assert (grade.score, reason in grade.reason) == (score, True)
    assert (failed.score, failed.reason) == (None, "failed: reset")
    assert not backend.requests


async def test_a_question_is_asked_once_and_its_tokens_count_each_time(tmp_path: Path) -> None:
    said = "correct: yes\nconfidence: 50"
    async with judged(hle, lambda request, n: said, tmp_path) as (grader, backend):
        grades = await asyncio.gather(*(grader.grade(QUESTION, trajectory("Answer: Paris")) for _ in range(9)))
    assert len(backend.requests) == 1
    async with judged(hle, lambda request, n: "correct: no", tmp_path) as (grader, backend):
        grades.append(await grader.grade(QUESTION, trajectory("Answer: Paris")))
        other = await grader.grade(QUESTION, trajectory("Answer: Rome"))
    assert len(backend.requests) == 1
    assert {(grade.score, grade.tokens) for grade in grades} == {(1.0, len(said))}
    assert other.score == 0.0


async def test_an_asker_who_leaves_does_not_take_the_verdict_from_another(tmp_path: Path) -> None:
    said = asyncio.Event()

    async def slow(request: object, n: int) -> str:
        await said.wait()
        return "correct: yes"

    async with judged(hle, slow, tmp_path) as (grader, backend):
        first, second = (asyncio.create_task(grader.grade(QUESTION, trajectory("Answer: Paris"))) for _ in range(2))
        (dispatch,) = grader.judge._dispatchers  # type: ignore[attr-defined]
        await until(lambda: [flight.waiters for flight in dispatch._flights.values()] == [2])
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        said.set()
        assert (await second).score == 1.0
    assert len(backend.requests) == 1


async def test_a_judge_that_can_is_held_to_a_schema_and_its_verdicts_are_its_own(tmp_path: Path) -> None:
    """A verdict given without a schema must not answer a question asked with one."""
    said = '{"extracted_final_answer": "Paris", "reasoning": "", "correct": "no", "confidence": 3}'
    async with judged(hle, lambda request, n: "correct: yes", tmp_path) as (grader, backend):
        assert (await grader.grade(QUESTION, trajectory("Answer: Paris"))).score == 1.0
        assert backend.requests[0].schema is None

    class Held(Scripted):
        capabilities = Capabilities(seeds="request", schema=True)

    backend = Held(lambda request, n: said)
    grader = hle(Judge(backend=backend, model=Model(name="judge"), store=str(tmp_path / "v.sqlite")))
    await grader.start()
    assert (await grader.grade(QUESTION, trajectory("Answer: Paris"))).score == 0.0
    await grader.close()
    schema = json.loads(backend.requests[0].schema or "")
    assert schema["required"] == ["extracted_final_answer", "reasoning", "correct", "confidence"]
    assert schema["properties"]["correct"]["enum"] == ["yes", "no"]


async def test_a_judge_that_fails_is_no_grade_and_a_dead_one_ends_the_run(tmp_path: Path) -> None:
    def refuse(request: object, n: int) -> str:
        raise RequestError("prompt too long")

    def die(request: object, n: int) -> str:
        raise EngineDead("gone")

    async with judged(hle, refuse, tmp_path) as (grader, _):
        grade = await grader.grade(QUESTION, trajectory("Answer: Paris"))
    assert (grade.score, grade.reason) == (None, "ungraded: judge: failed: prompt too long")
    async with judged(hle, die, tmp_path) as (grader, _):
        with pytest.raises(EngineDead, match="gone"):
            await grader.grade(QUESTION, trajectory("Answer: Rome"))
    cut = Completion(content="correct: yes", finish_reason="length", generated_tokens=9)
    async with judged(hle, lambda request, n: cut, tmp_path) as (grader, _):
        grade = await grader.grade(QUESTION, trajectory("Answer: Oslo"))
    assert (grade.score, grade.tokens, "truncated" in grade.reason) == (None, 9, True)


async def test_a_judge_that_cannot_start_is_named(tmp_path: Path) -> None:
    """Otherwise its user would look for the fault in the backend that is tested."""

    away = OpenAI(model=Model(name="j"), base_url=f"http://127.0.0.1:{closed_port()}", patience=0)
    grader = HLE(judge=Judge(backend=away, model=Model(name="j"), store=str(tmp_path / "v.sqlite")))
    with pytest.raises(LabError, match=r"^grader\.judge: no server answers"):
        await grader.start()
    await grader.close()


def test_fields_of_hostile_verdicts() -> None:
    """Linear in the length of the text, whatever the text is."""
    assert fields_of("{" * 100_000, ("correct",)) == {}
    assert fields_of("*" * 1_000_000 + "correct: yes", ("correct",)) == {}
    assert fields_of("\n" * 1_000_000 + "correct: yes", ("correct",)) == {"correct": "yes"}
    assert fields_of(json.dumps({"other": {"correct": "no"}}), ("correct",)) == {"correct": "no"}
