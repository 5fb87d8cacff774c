"""Where problems come from: each class has `load() -> list[Problem]`."""

from pacore_lab.problems.arithmetic import Arithmetic as Arithmetic
from pacore_lab.problems.ask import Ask as Ask
from pacore_lab.problems.jsonl import JSONL as JSONL

__all__ = ["JSONL", "Arithmetic", "Ask"]
