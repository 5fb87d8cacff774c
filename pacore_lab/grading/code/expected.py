"""Decides whether a program's output is the expected one, by the rules of LiveCodeBench's runner. Executes nothing.

The work is bounded by the expected output plus one pass over the program's output.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from itertools import zip_longest

_WORD = re.compile(r"\S+")


def same_text(output: str, expected: str) -> bool:
    """Compares line by line, without surrounding space; lines that differ as text must hold the same decimal numbers.

    There is no tolerance: 0.50 is 0.5, and 0.3333 is not 0.33333.
    """
    output, expected = output.strip(), expected.strip()
    if output == expected:
        return True
    if output.count("\n") != expected.count("\n"):
        return False
    return all(map(_same_line, output.split("\n"), expected.split("\n")))


def _same_line(line: str, expected: str) -> bool:
    if line.strip() == expected.strip():
        return True
    try:
        for found, wanted in zip_longest(_WORD.finditer(line), _WORD.finditer(expected)):
            if found is None or wanted is None or Decimal(found[0]) != Decimal(wanted[0]):
                return False
    except (InvalidOperation, ValueError):  # not a number, or a signalling NaN
        return False
    return True


def same_value(output: str, expected: object) -> bool:
    """Whether a call's result, as JSON, equals the expected value; 1 equals 1.0 and True, as in Python."""
    try:
        return bool(json.loads(output) == expected)
    except (ValueError, RecursionError):
        return False
