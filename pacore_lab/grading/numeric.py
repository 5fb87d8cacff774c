"""Values of plain expressions to 50 digits, in this process: numbers, letters, + - * / ^, roots, logarithms, sines.

The grammar is small and unambiguous. `evaluate` returns None for every other text, which is left to the worker. Two
expressions that agree to 25 digits at the same points are the same (math-verify itself is content with 15), so most
pairs are decided in microseconds. Only the arithmetic below evaluates anything, and it is bounded: short texts, small
exponents.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from pacore_lab.grading.plain import NotPlain, Reader, as_float, tokens_of

MAX_LENGTH = 200
DIGITS = 50
NOISE = 1e-45
POINTS = 2


@dataclass(frozen=True, slots=True)
class Value:
    """An expression's value at each point. exact: its value if that is rational and the expression has no variables.

    general: agreement at these points proves agreement everywhere. False if a root or logarithm of a variable has
    branches.
    """

    at: tuple[Any, ...]
    exact: Fraction | None
    general: bool

    @property
    def numbers(self) -> tuple[float, ...]:
        """Real and imaginary part at each point, as in the worker's fingerprints."""
        return tuple(float(part) for value in self.at for part in (value.real, value.imag))


def evaluate(text: str) -> Value | None:
    """The value of `compact` text, None if the text is not plain, too large, or undefined."""
    return _evaluate(text) if len(text) <= MAX_LENGTH else None


@lru_cache(maxsize=16384)
def _evaluate(text: str) -> Value | None:
    mp = _context()
    found = []
    try:
        tokens = tokens_of(text)
        for point in range(POINTS):
            reader = Reader(tokens, point, mp)
            value = reader.everything()
            found.append(mp.mpc(as_float(value, mp)))
        if any(not mp.isfinite(one) or abs(one) > 1e300 for one in found):
            return None
        exact = value if isinstance(value, Fraction) else _rational(found[0], mp)
    except (NotPlain, ArithmeticError, ValueError):
        return None
    return Value(tuple(found), None if reader.variables else exact, reader.general)


@cache
def _context() -> Any:
    """mpmath at 50 digits, separate from its global context, which other code may use."""
    import mpmath  # type: ignore[import-untyped]

    context = mpmath.MPContext()
    context.dps = DIGITS
    return context


def same(first: str, second: str) -> bool:
    """Whether both are plain expressions and have the same value."""
    one, other = evaluate(first), evaluate(second)
    return one is not None and other is not None and one.general and other.general and near(one, other)


def near(first: Value, second: Value) -> bool:
    """Whether two values agree to 25 digits; two rational values must be equal exactly."""
    if first.exact is not None and second.exact is not None:
        return first.exact == second.exact
    pairs = zip(first.at, second.at, strict=True)
    return all(abs(a - b) * 10**25 <= max(NOISE * 10**25, abs(a), abs(b)) for a, b in pairs)


def _rational(value: Any, mp: Any) -> Fraction | None:
    """The fraction with a small denominator that equals a constant to 40 digits (the root of 4 is 2), else None."""
    if abs(value) > 10**9 or abs(value.imag) > NOISE:
        return None
    close = Fraction(int(mp.nint(value.real * 10**48)), 10**48)
    simple = close.limit_denominator(10_000)
    slack = Fraction(1, 10**40) * abs(simple)  # only noise counts as zero
    return simple if abs(close - simple) <= slack or abs(value.real) < NOISE else None
