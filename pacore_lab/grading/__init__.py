"""Extracts answers from trajectories, decides which answers are the same, and grades them."""

from pacore_lab.grading.math_grader import MathGrader as MathGrader
from pacore_lab.grading.math_grader import NoGrader as NoGrader

__all__ = ["MathGrader", "NoGrader"]
