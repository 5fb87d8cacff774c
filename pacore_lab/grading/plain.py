"""Parses plain expressions and evaluates them as it goes: the grammar of `numeric`.

Text that is ambiguous (1/2x, ln 2x, f(x)), undefined or too large raises NotPlain, ZeroDivisionError or ValueError.
"""

from __future__ import annotations

import hashlib
import math
import re
from fractions import Fraction
from typing import Any

MAX_DEPTH = 20
MAX_EXPONENT = 2_000
MAX_FACTORIAL = 500
MAX_BITS = 20_000

_TOKEN = re.compile(r"\\[a-zA-Z]+|\d+(?:\.\d+)?|\.\d+|[A-Za-z](?:_(?:\w|\{\w+\}))?|[-+*/^!()\[\]{}_]| ", re.ASCII)
_GREEK = {r"\alpha", r"\beta", r"\gamma", r"\delta", r"\theta", r"\lambda", r"\mu", r"\phi", r"\omega"}
_ENTIRE = {r"\sin": "sin", r"\cos": "cos", r"\tan": "tan", r"\exp": "exp"}
_BRANCHED = {r"\ln": "ln", r"\arcsin": "asin", r"\arccos": "acos", r"\arctan": "atan"}
_STARTS = ("(", "{", r"\frac", r"\sqrt", r"\binom", r"\pi", *_GREEK, *_ENTIRE, *_BRANCHED, r"\log")
_FUNCTION_NAMES = "fghFGHP"


class NotPlain(Exception):
    """The text is not in this grammar."""


def tokens_of(text: str) -> list[str]:
    """The tokens of a text. Raises NotPlain for a character outside the grammar."""
    tokens = [token for token in _TOKEN.findall(text) if token != " "]
    if "".join(tokens) != text.replace(" ", ""):
        raise NotPlain
    return tokens


def as_float(value: Any, mp: Any) -> Any:
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


class Reader:
    """Recursive descent over tokens that evaluates as it goes: exactly while values are fractions, else by mpmath."""

    def __init__(self, tokens: list[str], point: int, mp: Any) -> None:
        self._tokens = [*tokens, ""]
        self._place = 0
        self._depth = 0
        self._point = point
        self._mp = mp
        self.variables = 0
        self.general = True

    def everything(self) -> Any:
        value = self._sum()
        if self._next:
            raise NotPlain
        return value

    @property
    def _next(self) -> str:
        return self._tokens[self._place]

    def _take(self, *expected: str) -> bool:
        if self._next and self._next in expected:
            self._place += 1
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise NotPlain

    def _sum(self) -> Any:
        negative = self._take("-")
        if not negative:
            self._take("+")
        value = self._product()
        value = -value if negative else value
        while self._next in ("+", "-"):
            minus = self._take("-") or not self._take("+")
            term = self._product()
            value = self._both(value, -term if minus else term, lambda a, b: a + b)
        return value

    def _product(self) -> Any:
        value = self._power()
        divided = False
        while True:
            if self._take("*", r"\cdot", r"\times"):
                value, divided = self._both(value, self._power(), lambda a, b: a * b), False
            elif self._take("/"):
                value, divided = self._both(value, self._power(), lambda a, b: a / b), True
            elif self._next in _STARTS or self._next[:1].isalpha():
                mixed = self._next == r"\frac" and self._tokens[self._place - 1][-1].isdigit()
                if divided or mixed:  # 1/2x; x+2\frac{1}{2}
                    raise NotPlain
                value = self._both(value, self._power(), lambda a, b: a * b)
            else:
                return value

    def _power(self) -> Any:
        variables = self.variables
        value = self._atom()
        if self._take("!"):
            value = self._factorial(value)
        if not self._take("^"):
            return value
        branched = self.variables > variables
        exponent = self._argument()
        if self._next == "^":
            raise NotPlain
        return self._raise(value, exponent, branched)

    def _raise(self, base: Any, exponent: Any, variable_base: bool) -> Any:
        whole = isinstance(exponent, Fraction) and exponent.denominator == 1
        if abs(as_float(exponent, self._mp)) > MAX_EXPONENT:
            raise NotPlain
        if whole and isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent.numerator) > MAX_BITS:
                raise NotPlain
            return base**exponent.numerator
        if variable_base and not whole:
            self.general = False
        return self._mp.mpc(as_float(base, self._mp)) ** (exponent.numerator if whole else as_float(exponent, self._mp))

    def _factorial(self, value: Any) -> Any:
        number = as_float(value, self._mp)
        if abs(number) > MAX_FACTORIAL:
            raise NotPlain
        if isinstance(value, Fraction):
            if value.denominator != 1 or value < 0:
                raise NotPlain
            return Fraction(math.factorial(value.numerator))
        return self._mp.factorial(number)

    def _atom(self) -> Any:
        token = self._next
        self._place += 1
        if token[:1].isdigit() or token[:1] == ".":
            if self._next[:1].isdigit() or self._next[:1] == ".":
                raise NotPlain
            return Fraction(token)
        if token in ("(", "{"):
            return self._inside(")" if token == "(" else "}")
        if token == r"\frac":
            above = self._argument()
            return self._both(above, self._argument(), lambda a, b: a / b)
        if token == r"\sqrt":
            return self._root()
        if token == r"\binom":
            above, below = self._argument(), self._argument()
            if abs(as_float(above, self._mp)) > MAX_FACTORIAL or abs(as_float(below, self._mp)) > MAX_FACTORIAL:
                raise NotPlain
            return self._mp.binomial(as_float(above, self._mp), as_float(below, self._mp))
        if token == r"\pi":
            return +self._mp.pi
        if token in _ENTIRE or token in _BRANCHED or token == r"\log":
            return self._function(token)
        if token in _GREEK or token[:1].isalpha():
            return self._letter(token)
        raise NotPlain

    def _letter(self, token: str) -> Any:
        if token == "e":
            return +self._mp.e
        if token == "i":
            return self._mp.mpc(0, 1)
        if token in _FUNCTION_NAMES and self._next == "(":
            raise NotPlain
        self.variables += 1
        name = token.lstrip("\\").replace("{", "").replace("}", "").lower()
        drawn = int.from_bytes(hashlib.sha256(f"{self._point} {name}".encode()).digest()[:4], "big")
        return self._mp.mpf(drawn) / 2**32 + self._mp.mpf(1) / 2

    def _root(self) -> Any:
        index = Fraction(2)
        if self._take("["):
            index = self._inside("]")
            if not isinstance(index, Fraction) or index.denominator != 1 or index < 2:
                raise NotPlain
        variables = self.variables
        radicand = as_float(self._argument(), self._mp)
        self.general &= self.variables == variables
        if index % 2 and not isinstance(radicand, self._mp.mpc) and radicand < 0:  # the real root
            return -self._mp.root(-radicand, int(index))
        return self._mp.root(radicand, int(index))

    def _function(self, token: str) -> Any:
        base = None
        if token == r"\log":
            self._expect("_")
            base = self._argument()
        if self._next not in ("(", "{", r"\pi", r"\frac", r"\sqrt") and not self._next[:1].isalnum():
            raise NotPlain
        variables, bare = self.variables, self._next not in ("(", "{")
        argument = as_float(self._atom(), self._mp)
        if self._next in ("^", "!", "/") or (bare and (self._next in _STARTS or self._next[:1].isalnum())):
            raise NotPlain  # ln 2x, sin x/2, ln (x)^2
        if abs(argument) > 10**6:
            raise NotPlain
        if token in _ENTIRE:
            return getattr(self._mp, _ENTIRE[token])(argument)
        self.general &= self.variables == variables
        if base is None:
            return getattr(self._mp, _BRANCHED[token])(argument)
        return self._mp.ln(argument) / self._mp.ln(as_float(base, self._mp))

    def _argument(self) -> Any:
        r"""A group in braces, or the single digit or letter after `^` and `\frac`."""
        if self._take("{"):
            return self._inside("}")
        if len(self._next) > 1 and self._next[0] != "\\":
            raise NotPlain
        if self._next in ("(", "-", "+"):
            raise NotPlain
        return self._atom()

    def _inside(self, closing: str) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotPlain
        value = self._sum()
        self._expect(closing)
        self._depth -= 1
        return value

    def _both(self, first: Any, second: Any, operation: Any) -> Any:
        if isinstance(first, Fraction) and isinstance(second, Fraction):
            return self._bounded(operation(first, second))
        return operation(as_float(first, self._mp), as_float(second, self._mp))

    def _bounded(self, value: Fraction) -> Fraction:
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
            raise NotPlain
        return value
