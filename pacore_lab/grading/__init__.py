"""Answers: taking them out of trajectories, telling which are the same, and grading them."""

from pacore_lab.grading.math_grader import MathGrader as MathGrader
from pacore_lab.grading.math_grader import NoGrader as NoGrader

__all__ = ["MathGrader", "NoGrader"]
