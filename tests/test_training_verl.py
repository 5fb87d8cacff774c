"""What verl trains with, which needs no verl: prompts within the token budget, and the reward."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacore_lab.errors import DataError
from pacore_lab.grading.math_grader import MathGrader
from pacore_lab.training import Record, SynthesisEnvironment, read_records, write_records
from pacore_lab.training.verl import lengths, reward
from pacore_lab.types import Grade
from strategies.prompts import Template
from tests.commands import call, refused
from tests.doubles import user

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "experiments/tiny_models/rlvr-tiny"


def record(name: str, responses: tuple[str, ...] = ("It is 1.", "It is 2."), **changed: Any) -> Record:
    given = {"conversation": user(f"{name}?"), "scores": tuple(0.0 for _ in responses), "answer": "21"}
    return Record(id=name, responses=responses, **{**given, **changed})


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return lengths._tokenizer(TINY)


def test_no_draw_is_longer_than_the_bound(tokenizer: Any) -> None:
    """Texts whose ends join with the template's line breaks, and pools in which sizes differ."""
    texts = tuple(("\n" * (i % 3)) + "12 + 3 = 15, " * i + ("\n" * (i % 2)) for i in range(12))
    one = record("a", texts)
    bound = lengths.longest(one, 5, Template(), tokenizer)
    made = SynthesisEnvironment(records=[one], prompt=Template(), graders={"math": MathGrader()}, m_min=1, m_max=5)
    count = lengths.token_counter(tokenizer)
    drawn = [count(made.instance(number).prompt) for number in range(200)]
    assert 0.8 * bound < max(drawn) <= bound, "too loose a bound would drop problems that fit"
    assert lengths.longest(one, 0, Template(), tokenizer) == count(one.problem.messages)


def test_the_budget_command_says_what_it_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fits, long, few = record("fits"), record("long", ("1 + 1 = 2, " * 200, "2")), record("few", ("1",))
    write_records(tmp_path / "in.jsonl", [fits, long, few])
    words = ("--checkpoint", TINY, "--prompt", "strategies.prompts.published", "--m-max", 2, "--tokens", 1000)
    call(monkeypatch, lengths, tmp_path / "in.jsonl", *words, "--to", tmp_path / "out.parquet")
    said = " ".join(capsys.readouterr().out.split())
    assert "its longest prompt may exceed 1000 tokens 1" in said
    assert "fewer than 2 messages 1" in said
    assert read_records(tmp_path / "out.parquet") == [fits]


@pytest.mark.parametrize(
    ("word", "value", "said"),
    [
        ("--prompt", "strategies.prompts.nothing", "'strategies.prompts.nothing', which makes no prompt builder"),
        ("--prompt", "nothing at all", "which makes no prompt builder"),
        ("--checkpoint", "/nowhere", "--checkpoint /nowhere: no usable tokenizer"),
        ("--m-max", "-1", "--m-max is -1; give a whole number of 0 or more"),
        ("--tokens", "1", "no problem is left"),
    ],
)
def test_budgets_that_cannot_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    word: str,
    value: str,
    said: str,
) -> None:
    write_records(tmp_path / "in.jsonl", [record("a")])
    given = {"--checkpoint": TINY, "--prompt": "strategies.prompts.published", "--m-max": 2, "--to": "out.jsonl"}
    words = [part for pair in {**given, word: value}.items() for part in pair]
    monkeypatch.chdir(tmp_path)
    assert said in refused(monkeypatch, capsys, lengths, "in.jsonl", *words)
    assert not Path("out.jsonl").exists()


@pytest.fixture
def records(tmp_path: Path) -> Iterator[str]:
    write_records(tmp_path / "records.jsonl", [record("a"), record("b", answer="7")])
    reward._graders.cache_clear()
    yield str(tmp_path / "records.jsonl")
    reward._graders.cache_clear()


async def score(records: str, text: str, name: str = "a", **info: Any) -> float:
    environment = SynthesisEnvironment(
        records=[each for each in read_records(Path(records)) if each.id == name],
        prompt=Template(), graders={"math": MathGrader()}, m_min=2, m_max=2,
    )  # fmt: skip
    truth = reward.ground_truth(environment.instance(3), 3)
    return await reward.compute_score("math", text, truth, info, records=records, workers=1)


async def test_the_reward_is_the_cores_grade(records: str) -> None:
    assert await score(records, r"so</think>\boxed{21}") == 1.0
    assert await score(records, r"so</think>\boxed{21}", "b") == 0.0
    assert await score(records, r"\boxed{21}", truncated=True) == 0.0
    assert await score(records, r"\boxed{21}", truncated=False) == 1.0


async def test_an_ungraded_response_is_not_a_wrong_one(
    records: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def nothing(*_: Any) -> Grade:
        return Grade(score=None, reason="ungraded: time limit")

    monkeypatch.setattr(MathGrader, "grade", nothing)
    assert await score(records, r"\boxed{21}") == reward.UNGRADED != 0
    assert "not graded, so no reward (record a): ungraded: time limit" in caplog.text


async def test_records_of_another_file_raise(records: str) -> None:
    write_records(Path(records), [record("c")])
    other = SynthesisEnvironment(
        records=[record("z")], prompt=Template(), graders={"math": MathGrader()}, m_min=2, m_max=2
    )
    truth = reward.ground_truth(other.instance(0), 0)
    with pytest.raises(DataError, match="there is no record 'z'; reward and data set need the same file"):
        await reward.compute_score("math", "", truth, None, records=records, workers=1)


def test_tests_do_not_travel() -> None:
    """They would be in the trainer's dump once per response, and through every process."""
    tests = {"tests": [{"testtype": "stdin", "input": "SECRET", "output": "2"}], "fn_name": None}
    made = SynthesisEnvironment(
        records=[record("a", answer=None, reference=tests)], prompt=Template(),
        graders={"code": MathGrader()}, m_min=2, m_max=2,
    )  # fmt: skip
    truth = reward.ground_truth(made.instance(0), 0)
    assert "SECRET" not in truth
    assert json.loads(truth) == {"record": "a", "number": 0, "domain": "code", "answer": None, "scores": [0.0, 0.0]}
