"""Grades programs by running them on tests in a sandbox."""

from pacore_lab.grading.code.code_grader import LcbOfficial as LcbOfficial
from pacore_lab.grading.code.code_grader import LcbSubprocess as LcbSubprocess

__all__ = ["LcbOfficial", "LcbSubprocess"]
