"""Agreement of syntheses with the messages they were shown: by place, by kind, over runs of the mock backend."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacore_lab.analysis import agreement
from pacore_lab.analysis.agreement import Synthesis
from pacore_lab.commands import copying
from pacore_lab.grading import NoGrader
from pacore_lab.results.line import trajectories_of
from tests.lines import line
from tests.outside import invoke, write_jsonl


def made(answer: int | None, *shown: int | None, problem: int = 0, repeat: int = 0, **extra: Any) -> Synthesis:
    facts = {"place": 1, "wrong": False, "score": None, **extra}
    sources = tuple(f"{problem}-{repeat}-{i}" for i in range(len(shown)))
    return Synthesis(problem=f"p{problem}", repeat=repeat, sources=sources, shown=shown, answer=answer, **facts)


def episode(*rounds: Sequence[str | None], score: float | None = 1.0, error: str | None = None, **extra: Any) -> Any:
    r"""A line whose rounds gave these answers, each the message of its own; None has no box, "!" failed."""
    texts = [["hm" if answer is None else f"\\boxed{{{answer}}}" for answer in answers] for answers in rounds]
    names = [[f"r{i}-{j}" for j in range(len(answers))] for i, answers in enumerate(rounds)]
    facts = {"index": 0, "finish_reason": "stop", "tokens": 1, "counted": True, "mean_logprob": None}
    return line(
        score=score,
        error=error,
        round_responses=[[{"content": text, "reasoning_content": ""} for text in each] for each in texts],
        messages=[
            [{"text": "as told", "sources": [name]} for name, answer in zip(*both, strict=True) if answer != "!"]
            for both in zip(names, rounds, strict=True)
        ],
        trajectories=[
            [{**facts, "id": name, "error": "failed" if answer == "!" else None}
             for name, answer in zip(*both, strict=True)]
            for both in zip(names, rounds, strict=True)
        ],
        answers=names[-1],
        samples=[{"id": name, "score": float(answer == "7"), "class": 0, "warnings": []}
                 for name, answer in zip(names[0], rounds[0], strict=True)],
        **extra,
    )  # fmt: skip


async def test_what_a_line_has_of_its_syntheses() -> None:
    """Messages read in place of their trajectories: a compaction that drops the box would show no answer."""
    found = await agreement.syntheses([episode(["5", None, "6"], ["6", "!", "8"], ["8"])], NoGrader())
    assert [(each.place, each.shown, each.answer, each.kind) for each in found] == [
        (1, (0, None, 1), 1, "tied with another"),
        (1, (0, None, 1), 2, "new"),
        (2, (0, 1), 1, "tied with another"),
    ]
    assert [each.score for each in found] == [None, None, 1.0]  # only final answers are graded
    assert [each.wrong for each in found] == [True, True, False]  # of later messages it is not known


async def test_a_message_of_several_trajectories_speaks_for_itself() -> None:
    shown = episode(["5", "6"], ["8"])
    shown["messages"][0] = [{"text": "so \\boxed{8}", "sources": ["r0-0", "r0-1"]}]
    [found] = await agreement.syntheses([shown], NoGrader())
    assert found.agrees == (True,)
    assert found.wrong


async def test_failed_episodes_and_rounds_without_messages_have_none() -> None:
    lines = [episode(["5"], ["5"], error="failed: x"), episode(["!"], ["5"]), episode(["5"]), episode(["5"], ["!"])]
    assert await agreement.syntheses(lines, NoGrader()) == []


def test_kinds_of_answers() -> None:
    """An answer that nobody gave has no class in common with the messages that gave none."""
    kinds = [made(1, 1, 1, 2), made(1, 1, 2), made(2, 1, 1, 2), made(3, 1, 2), made(None, None, 1), made(1, None, 1)]
    assert [each.kind for each in kinds] == [
        "most messages'", "tied with another", "fewer messages'", "new", "no answer", "most messages'"
    ]  # fmt: skip


def test_shares_and_scores_by_kind() -> None:
    found = [made(1, 1, 1, 2, problem=p, score=float(p % 2), wrong=p == 1) for p in range(4)]
    found += [made(3, 1, 1, 2, problem=4, score=None)]
    rows = {each.name: each for each in agreement.kinds(found)}
    assert list(rows) == ["most messages'", "new", "all messages wrong"]
    assert (rows["most messages'"].share.mean, rows["new"].share.mean) == (0.8, 0.2)
    assert rows["new"].score is None  # an ungraded answer is not a wrong one
    score = rows["most messages'"].score
    assert score is not None
    assert (score.mean, score.problems, score.syntheses) == (0.5, 4, 4)
    emergent = rows["all messages wrong"].score
    assert emergent is not None
    assert emergent.mean == 1.0


answers = st.none() | st.integers(0, 3)


@given(st.integers(1, 9).flatmap(lambda m: st.lists(st.tuples(answers, st.tuples(*[answers] * m)), min_size=1)))
def test_leads_of_all_places_cancel(drawn: list[tuple[int | None, tuple[int | None, ...]]]) -> None:
    found = [made(answer, *shown, problem=i % 3, repeat=i) for i, (answer, shown) in enumerate(drawn)]
    positions = agreement.by_index(found)
    assert sum(each.lead.mean for each in positions) == pytest.approx(0, abs=1e-9)
    for each in positions:
        assert -1 <= each.lead.low <= each.lead.mean <= each.lead.high <= 1
        assert -1e-9 <= each.expected + each.lead.mean <= 1 + 1e-9


def test_a_model_that_copies_a_place_is_found_out() -> None:
    rng = random.Random(0)
    lists = [[rng.randrange(4) for _ in range(5)] for _ in range(60)]
    positions = agreement.by_index([made(shown[2], *shown, problem=i) for i, shown in enumerate(lists)])
    assert [each.name for each in positions if each.lead.low > 0] == ["3"]
    assert positions[2].expected + positions[2].lead.mean == pytest.approx(1)
    blind = agreement.by_index([made(rng.choice(shown), *shown, problem=i) for i, shown in enumerate(lists)])
    assert all(each.lead.low <= 0 <= each.lead.high for each in blind)


def test_parts_of_lists_of_different_lengths() -> None:
    found = [made(1, 1, 0, 0, 0, problem=0), made(1, 1, 1, 0, 0, 0, 0, 0, 0, problem=1), made(1, 0, 0, 0, 0, 1)]
    assert [each.name for each in agreement.by_quarter(found)] == ["1/4", "2/4", "3/4", "4/4"]
    first, _, _, last = agreement.by_quarter(found[:2])
    assert first.lead.mean == pytest.approx(0.75)
    assert last.lead.mean == pytest.approx(-0.25)
    assert agreement.by_quarter(found[2:])[3].lead.mean == pytest.approx(0.8)


def test_siblings_and_shared_pools_are_not_independent() -> None:
    """Four siblings of one list, in each of two repeats: two lists, and one where both drew the same trajectories."""
    apart = [made(1, 1, 2, repeat=r) for r in range(2) for _ in range(4)]
    assert agreement.worth(apart) == pytest.approx(2)
    shared = [Synthesis(**{name: getattr(each, name) for name in Synthesis.__slots__} | {"sources": ("a", "b")})
              for each in apart]  # fmt: skip
    assert agreement.worth(shared) == pytest.approx(1)


QUESTIONS = [{"question": f"{n}?", "answer": "0", "id": f"p{n}"} for n in range(4)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By strategy: K = [6, 4] and a single sample, of the mock backend with three different answers."""
    folder = tmp_path_factory.mktemp("runs")
    problems = write_jsonl(folder / "problems.jsonl", QUESTIONS)
    outs = {}
    for name, words in (("pacore", ["strategy/schedule=[6,4]"]), ("single", [])):
        outs[name] = folder / name
        said = invoke(f"strategy={name}", *words, "backend=mock", "backend.answers=3", "problems=jsonl", "repeats=2",
                      f"problems.path={problems}", f"out={outs[name]}", f"store={folder / 'store.sqlite'}",
                      f"grader.cache={folder / 'grades.sqlite'}")  # fmt: skip
        assert said.code == 0, said.err
    return outs


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["copying", *map(str, words)])
    copying.main()


def test_the_command_reads_a_run(
    finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = finished["pacore"]
    run(monkeypatch, out, "--to", tmp_path / "x.svg")
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    for head in ("pacore: 40 syntheses of 4 problems", "pacore, of 4", "pacore, of 6", "pacore, by part of the list"):
        assert head in said
    same = []
    for each in map(json.loads, (out / "results.jsonl").read_text().splitlines()):
        answers = {name: t.content.rpartition("boxed")[2] for name, t in trajectories_of(each).items()}
        [first, *_] = each["messages"][1]
        same.append(answers[first["sources"][0]] == answers[each["answers"][0]])
    seen = re.search(r"pacore, of 4 1 ([\d.]+) ", said)
    assert seen is not None
    assert float(seen[1]) == pytest.approx(100 * sum(same) / len(same), abs=0.06)
    assert "By place, of 6 messages" in (tmp_path / "x.svg").read_text()


def test_runs_side_by_side(
    finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of other numbers of messages has no points in a panel, and takes none away."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("settings.json", "versions.json"):
        (other / name).write_text((finished["pacore"] / name).read_text())
    lines = [json.loads(text) for text in (finished["pacore"] / "results.jsonl").read_text().splitlines()]
    for each in lines:
        each["messages"] = [shown[:1] for shown in each["messages"]]
    write_jsonl(other / "results.jsonl", lines)
    run(monkeypatch, finished["pacore"], other, "--grader", "none", "--to", tmp_path / "x.png")
    said = capsys.readouterr().out
    assert "other, of" not in said  # a single message has no place
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_one_line(
    finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ("--to", tmp_path / "x.png")
    out = finished["pacore"]
    for words, text in (
        ((tmp_path / "none", *to), "holds no run of this lab"),
        ((finished["single"], *to), "(single) has no trajectory that was shown messages"),
        ((out, out, *to), "a run is named twice"),
        ((out, "--to", tmp_path / "x.gif"), "neither .png nor .svg"),
        ((out, "--grader", "lcb_subprocess", *to), "cannot tell whether two answers are the same"),
        ((out, "--grader", "nonsense", *to), "nonsense"),
    ):
        with pytest.raises(SystemExit) as end:
            run(monkeypatch, *words)
        err = capsys.readouterr().err
        assert (end.value.code, err.count("\n")) == (2, 1)
        assert text in err
