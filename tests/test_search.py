"""Search problems: one right candidate each, no candidate likelier than another, train and test apart."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pacore_lab.problems.search import Search, generate, split_of


def test_a_generator_by_hand():
    """4*4*4 + 4 + 0 = 68, then 4*4*4 + 8 = 72, then 8*8*8 + 2 = 514; then 2*2*2 + 4 = 12."""
    assert generate(44, 0, 4) == ["48", "82", "24", "42"]


@settings(max_examples=40, deadline=None)
@given(constant=st.integers(0, 9), steps=st.integers(1, 9))
def test_no_two_numbers_end_alike(constant, steps):
    """Were endings shared, some candidates could be ruled out without a trial, and the answer would not be uniform."""
    assert len({generate(start, constant, steps)[-1] for start in range(10, 100)}) == 90


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 50), boxes=st.integers(2, 22), split=st.sampled_from(["train", "test"]))
def test_the_answer_is_the_one_candidate_that_ends_as_asked(seed, boxes, split):
    for hunt in Search(n=5, boxes=boxes, seed=seed, split=split).hunts():
        candidates = [each for box in hunt.boxes for each in box]
        assert len(hunt.boxes) == boxes
        assert len(set(candidates)) == 3 * boxes
        fits = [each for each in candidates if generate(each, hunt.constant, hunt.steps)[-1] == hunt.ending]
        assert fits == [hunt.answer]
        assert split_of(hunt.constant, hunt.steps, hunt.boxes) == split


def test_a_problem_keeps_its_split_however_it_is_boxed():
    """Were the order to count, a problem of the test split could be trained on with its boxes shuffled."""
    assert {split_of(1, 6, boxes) for boxes in (((40, 50), (60, 70)), ((70, 40), (50, 60)), ((40, 50, 60, 70),))} == {
        split_of(1, 6, ((40, 50), (60, 70)))
    }


def test_answers_lie_in_any_box():
    """A favoured box would let a model find more than 1 in 8."""
    places = Counter(next(i for i, box in enumerate(h.boxes) if h.answer in box) for h in Search(n=2400).hunts())
    assert all(230 <= places[place] <= 370 for place in range(8))  # 300 each; 4.3 standard deviations


def test_a_larger_set_only_appends_and_ids_follow_the_text():
    few, many = Search(n=5).load(), Search(n=9).load()
    assert many[:5] == few
    assert len({problem.id for problem in many}) == 9
    assert Search(n=5, seed=1).load()[0] != few[0]


def test_ids_are_pinned():
    """A change here would silently orphan every stored trajectory of the default problem set."""
    assert [problem.id for problem in Search(n=2).load()] == ["search-7576edfed81b", "search-6e176484d231"]


def test_the_problem_reads_as_it_should():
    problem = Search(n=1, boxes=2, box=2, steps=4).load()[0]
    (turn,) = problem.messages
    assert "After 4 steps it is at " in turn["content"]
    assert turn["content"].endswith("\\boxed{}.")
    listed = turn["content"].split("start from? ")[1].removesuffix(" Put the final answer in \\boxed{}.").split()
    assert (listed[0], listed[3], len(listed)) == ("A", "B", 6)
    assert problem.answer in listed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"boxes": 1}, "boxes is 1"),
        ({"boxes": 23}, "boxes is 23, each of 3; there are only 67 numbers and 26 labels"),
        ({"boxes": 27, "box": 1}, "boxes is 27, each of 1"),
        ({"box": 0}, "box is 0"),
        ({"starts": (9, 99)}, r"starts is \(9, 99\)"),
        ({"steps": 0}, "steps is 0"),
        ({"n": 0}, "n is 0"),
        ({"split": "dev"}, "split is 'dev'"),
    ],
)
def test_arguments_out_of_range_are_named(change, says):
    with pytest.raises(ValueError, match=says):
        Search(**change)


def test_a_set_that_cannot_be_found_says_so():
    with pytest.raises(ValueError, match="distinct test problems found; widen starts, lower n"):
        Search(n=500, boxes=3, box=1, starts=(50, 54)).load()


def test_the_configuration_lists_every_argument():
    """A drifted default would make the YAML and the class disagree, and so the training and the evaluation."""
    arguments = yaml.safe_load(Path("conf/problems/search.yaml").read_text())
    assert arguments.pop("_target_") == "pacore_lab.problems.search.Search"
    assert set(arguments) == set(Search.__dataclass_fields__)
    assert Search(**arguments) == Search()
