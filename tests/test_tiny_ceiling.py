"""The reference that the tiny models' study compares with: solvers that make no mistake."""

import pytest

from experiments.tiny_models.ceiling import votes
from pacore_lab.problems.search import Search


def test_one_solver_is_right_by_its_box_or_by_a_guess():
    found, any_right = votes(Search(boxes=8, box=3), (1,))[1]
    assert found == any_right == pytest.approx(1 / 8 + 7 / 8 / 21, abs=0.01)


def test_two_boxes_of_one_candidate_are_told_apart_by_elimination():
    """Who finds nothing in one of two boxes guesses the other: everybody is right."""
    assert votes(Search(boxes=2, box=1), (1, 3)) == {1: (1.0, 1.0), 3: (1.0, 1.0)}
