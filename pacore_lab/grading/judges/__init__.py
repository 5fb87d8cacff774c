"""Graders that ask a model."""

from pacore_lab.grading.judges.hle import HLE as HLE
from pacore_lab.grading.judges.judge import Judge as Judge
from pacore_lab.grading.judges.judged_answers import JudgedAnswers as JudgedAnswers
from pacore_lab.grading.judges.multichallenge import MultiChallenge as MultiChallenge

__all__ = ["HLE", "Judge", "JudgedAnswers", "MultiChallenge"]
