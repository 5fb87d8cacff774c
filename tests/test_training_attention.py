"""Attention to messages: the prompts are those that were sampled from, the sums those of the model's own weights."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pacore_lab.errors import ConfigError
from pacore_lab.training import attention
from pacore_lab.training.attended import Paid, Reader, spans_of
from pacore_lab.training.attended import attention as attended
from pacore_lab.training.syntheses import Rebuilt, mark, rebuilt
from pacore_lab.types import Message, Problem
from strategies.prompts import published
from tests.outside import ROOT, invoke, write_jsonl

TINY = ROOT / "experiments" / "tiny_models" / "rlvr-tiny"
QUESTIONS = [{"question": f"What is {n} + {n}?", "answer": "0", "id": f"p{n}"} for n in range(3)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """K = [4, 2] of the mock backend, three problems, whose messages are a digit each."""
    folder = tmp_path_factory.mktemp("run")
    problems = write_jsonl(folder / "problems.jsonl", QUESTIONS)
    made = folder / "out"
    said = invoke("strategy=pacore", "strategy/schedule=[4,2]", "strategy/compaction=answer_only", "backend=mock",
                  "backend.answers=3", "backend.characters=20", "problems=jsonl", f"problems.path={problems}",
                  f"out={made}", f"store={folder / 'store.sqlite'}",
                  f"grader.cache={folder / 'grades.sqlite'}")  # fmt: skip
    assert said.code == 0, said.err
    return made


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.load(TINY, {})


def copy(out: Path, to: Path, **settings: Any) -> Path:
    to.mkdir()
    for name in ("versions.json", "results.jsonl"):
        (to / name).write_text((out / name).read_text())
    changed = json.loads((out / "settings.json").read_text())
    changed["strategy"] |= settings
    (to / "settings.json").write_text(json.dumps(changed))
    return to


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["attention", *map(str, words)])
    attention.main()


def test_prompts_are_made_again_as_they_were_sampled_from(out: Path) -> None:
    found, left_out = rebuilt(out, 50)
    assert (len(found), dict(left_out)) == (9, {})  # two in the second round and one in the third, of three problems
    first = found[0]
    assert len(first.messages) == 4
    assert set(first.scores) <= {0.0, 1.0}
    assert "Reference 4:\n" in str(first.prompt[0]["content"])
    assert mark(3) in str(first.frame[0]["content"])
    last = next(each for each in found if len(each.messages) == 2)
    assert last.scores == (None, None)  # messages of later rounds have no grade


def test_some_episodes_are_the_same_ones_each_time(out: Path) -> None:
    few, _ = rebuilt(out, 1)
    assert len(few) == 3
    assert few == rebuilt(out, 1)[0]


def test_a_prompt_that_was_not_sampled_from_is_left_out(out: Path, tmp_path: Path) -> None:
    """Attention to a prompt that the model never saw, because the run's own prompt had been another."""
    other = copy(out, tmp_path / "other", prompt={"_target_": "strategies.prompts.unnumbered"})
    found, left_out = rebuilt(other, 50)
    assert (found, dict(left_out)) == ([], {"its prompt cannot be rebuilt": 9})


def test_a_short_message_is_not_found_in_the_problem() -> None:
    """Looking for the text "1" found it in the template's numbers."""
    messages = ("1", "", "1")
    text, frame = (f"Q: 1 + 1? 1: {a} 2: {b} 3: {c}." for a, b, c in (messages, map(mark, range(3))))
    spans = spans_of(text, frame, messages)
    assert spans == [(13, 14), (18, 18), (22, 23)]
    assert spans_of(text.strip("."), frame, messages) is None


def test_pieces_sum_to_the_weights_of_the_whole(reader: Reader) -> None:
    import torch

    tokens = [5 + i % 60 for i in range(50)]
    with torch.inference_mode():
        weights = reader.net(torch.tensor([tokens]), output_attentions=True).attentions
    expected = torch.stack(weights)[:, 0, :, 30:].double().mean(dim=(0, 1, 2)).numpy()
    for held in (10**9, 4 * 4 * 50 * 7, 1):
        np.testing.assert_allclose(attended(reader.net, tokens, 30, held), expected, atol=1e-6)
    assert expected.sum() == pytest.approx(1, abs=1e-5)


def test_even_attention_is_one(out: Path) -> None:
    """A ratio that grew with the place in the list or with the length of a message."""
    blind = Reader.load(TINY, {})
    for layer in blind.net.model.layers:
        layer.self_attn.q_proj.weight.data.zero_()
    found, _ = rebuilt(out, 50)
    for item in found:
        paid = blind.read(item)
        assert isinstance(paid, Paid)
        np.testing.assert_allclose(paid.ratios, 1, atol=1e-4)


def item(*messages: str, response: str = "yes", question: str = "q") -> Rebuilt:
    problem = Problem(id="p", messages=({"role": "user", "content": question},))
    shown = [Message(text=text, sources=()) for text in messages]
    marks = [Message(text=mark(i), sources=()) for i in range(len(messages))]
    return Rebuilt(problem="p", prompt=published()(problem, shown), frame=published()(problem, marks),
                    messages=messages, scores=(None,) * len(messages), response=response)  # fmt: skip


def test_what_cannot_be_told_is_said(reader: Reader) -> None:
    assert reader.read(item("a", response="")) == "its response has no tokens"
    assert "longer than the context" in str(reader.read(item("a", response="7" * 5000)))
    strange = replace(item("a"), messages=("b",))
    assert reader.read(strange) == "its messages are not found in its prompt"
    paid = reader.read(item("", "b"))
    assert isinstance(paid, Paid)
    assert np.isnan(paid.ratios).tolist() == [True, False]


def paid(problem: str, *ratios: float, scores: tuple[float, ...]) -> Paid:
    return Paid(problem=problem, shares=np.array(ratios) / 10, ratios=np.array(ratios), scores=np.array(scores))


def test_right_and_wrong_messages_are_told_apart() -> None:
    found = [
        paid("a", 3.0, 1.0, scores=(1, 0)),
        paid("a", 5.0, 2.0, scores=(1, math.nan)),
        paid("b", 1.0, 1.0, scores=(0, 0)),
    ]
    means = attention.means(found)
    assert means["all"][0] == pytest.approx(((2.0 + 3.5) / 2 + 1.0) / 2)  # problems count alike
    assert means["right"][0] == 4.0
    assert np.isnan(means["right"][1:]).all()  # one problem tells no interval
    assert means["wrong"][0] == 1.0
    assert means["right − wrong"][0] == 2.0  # of the one synthesis that has both
    places = attention.by_place(found)[2]
    assert [row[0] for row in places["all"]] == [pytest.approx(2.5), pytest.approx(1.25)]


def test_the_command_reads_a_run(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, out, "--model", TINY, "--episodes", 2, "--to", tmp_path / "x.svg")
    said = capsys.readouterr()
    assert "6 syntheses of 2 problems" in said.out
    assert "of 4" in said.out
    assert said.err == ""
    assert "By place, of 4 messages" in (tmp_path / "x.svg").read_text()


def test_mistakes_are_one_line(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{}")
    single = copy(out, tmp_path / "single")
    lines = [json.loads(text) | {"messages": [[]]} for text in (out / "results.jsonl").read_text().splitlines()]
    write_jsonl(single / "results.jsonl", lines)
    other = copy(out, tmp_path / "other", prompt={"_target_": "strategies.prompts.unnumbered"})
    bare = copy(out, tmp_path / "bare")
    settings = json.loads((bare / "settings.json").read_text())
    del settings["strategy"]["prompt"]
    (bare / "settings.json").write_text(json.dumps(settings))
    to = ("--to", tmp_path / "x.png")
    for words, text in (
        ((tmp_path / "none", "--model", TINY, *to), "holds no run of this lab"),
        ((single, "--model", TINY, *to), "no trajectory that was shown messages"),
        ((bare, "--model", TINY, *to), "has no prompt of its own"),
        ((other, "--model", TINY, *to), "nothing to draw, since every synthesis was left out"),
        ((out, "--model", tmp_path / "empty", *to), "no config.json"),
        ((out, "--model", tmp_path / "bad", *to), "cannot be loaded"),
        ((out, "--model", TINY, "--episodes", 0, *to), "--episodes is 0"),
        ((out, "--model", TINY, "--to", tmp_path / "x.txt"), "neither .png nor .svg"),
    ):
        with pytest.raises(SystemExit) as end:
            run(monkeypatch, *words)
        err = capsys.readouterr().err
        assert (end.value.code, err.count("\n")) == (2, 1), err
        assert text in err


def test_layers_that_see_a_window_only_are_refused(reader: Reader) -> None:
    class Narrow:
        config, device = reader.net.config, "cpu"

        def __call__(self, ids: Any, **options: Any) -> Any:
            import torch

            return type("Out", (), {"past_key_values": None, "attentions": (torch.ones(1, 4, 2, 2),)})

    with pytest.raises(ConfigError, match="only a part of the text"):
        attended(Narrow(), [1, 2, 3, 4], 2)
