"""The study of experiments/adaptive: its commands name what is there, and its stand-in is taught what it says."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.adaptive.policies import MODELS, POLICIES, SYNTHESIZER, synthesizes
from experiments.adaptive.runs import run_all, write_table
from experiments.adaptive.sums import examples, references, slip
from experiments.adaptive.zoo import BUDGETS, COMMON, strategies
from pacore_lab.config.calling import composed
from pacore_lab.interfaces import Strategy
from tests.outside import ROOT


def built(words: str) -> Strategy:
    """What run.py would make of it."""
    return composed(*COMMON, *words.split()).strategy


@pytest.mark.slow
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_strategy_of_the_zoo_is_one(budget: str) -> None:
    """A table of hours that ends at a name which was changed since."""
    for words in strategies(budget).values():
        built(words)


def test_what_the_zoo_names_is_an_option() -> None:
    """The study says what it compares; a strategy that came later is none of its business."""
    words = " ".join(words for budget in BUDGETS for words in strategies(budget).values()).split()
    named = {word.removeprefix("strategy=") for word in words if word.startswith("strategy=")}
    assert named
    assert {name for name in named if not (ROOT / "conf" / "strategy" / f"{name}.yaml").is_file()} == set()


@pytest.mark.slow
def test_every_policy_is_one() -> None:
    for problems, policies in POLICIES.items():
        for words in policies.values():
            own = SYNTHESIZER if problems == "arithmetic" and synthesizes(words) else ""
            built(f"{words} model={MODELS[problems]}{own}")


def test_runs_are_repeated_only_where_they_were_not_finished(tmp_path: Path) -> None:
    table = {"a vote": "strategy=majority_vote strategy.k=4", "PaCoRe [4]": "strategy=pacore_low"}
    common = ["backend=mock", "problems.n=5", "grader.cache=null"]
    folders = run_all(table, common, tmp_path / "w", shared=True)
    first = {name: (folder / "versions.json").stat().st_mtime_ns for name, folder in folders.items()}
    (folders["a vote"] / "summary.json").unlink()
    assert run_all(table, common, tmp_path / "w", shared=True) == folders
    again = {name: (folder / "versions.json").stat().st_mtime_ns for name, folder in folders.items()}
    assert (again["PaCoRe [4]"], again["a vote"] > first["a vote"]) == (first["PaCoRe [4]"], True)
    rows = write_table(folders, tmp_path / "t.csv", baseline="a vote")
    assert [row["name"] for row in rows] == ["a vote", "PaCoRe [4]"]
    assert rows[1]["ttc"] == pytest.approx(rows[0]["ttc"] * 5 / 4, rel=0.05)
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 3


@given(st.integers(100, 200_000), st.integers(0, 10_000))
def test_the_right_answer_is_the_most_frequent_reference(right: int, seed: int) -> None:
    """Else the stand-in would be taught to guess."""
    counted = Counter(references(right, random.Random(seed))).most_common(2)
    assert counted[0][0] == right
    assert len(counted) == 1 or counted[0][1] > counted[1][1]
    wrong = slip(right, random.Random(seed))
    digits = list(zip(str(right), str(wrong).zfill(len(str(right))), strict=True))
    assert sum(mine != other for mine, other in digits) == 1


def test_examples_repeat_and_answer_as_the_references_do() -> None:
    few = list(itertools.islice(examples(3), 40))
    assert few == list(itertools.islice(examples(3), 40))
    bare = [example for example in few if "Reference" not in example.messages[-1]["content"]]
    assert 0 < len(bare) < 25
    for example in few:
        answer = example.response.rsplit("\\boxed{", 1)[1].rstrip("}.")
        if example not in bare:
            assert example.messages[-1]["content"].count(f"boxed{{{answer}}}") >= 1
            assert example.response.startswith("<think>\n</think>\n\n")
