"""Reads numbers, quantities, choices and words exactly, without computer algebra.

Numbers are `fractions.Fraction`: 0.5 equals 1/2, 0.333333 does not equal 1/3, and 10^-7 is not 4*10^-7.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import TypeAlias

Number: TypeAlias = Fraction | float
"""An exact number; a float is one of the two infinities."""

_INTEGER = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)(?:"
    r"(?P<base>\d{1,4})\^(?:\{(?P<exponent>[+-]?\d{1,4})\}|(?P<exponent1>\d))"
    rf"|(?P<decimal>{_INTEGER}(?:\.\d*)?|\.\d+)"
    r"(?:\\(?:overline|bar)\{(?P<period>\d+)\}"
    r"|[eE](?P<e>[+-]?\d{1,4})|\\(?:times|cdot)10\^(?:\{(?P<power>[+-]?\d{1,4})\}|(?P<digit>\d)))?"
    rf"|(?:(?P<whole>\d+)(?: (?=\d)|(?=\\)))?(?:"
    rf"\\frac(?:\{{(?P<above>[+-]?{_INTEGER})\}}|(?P<above1>\d))(?:\{{(?P<below>[+-]?{_INTEGER})\}}|(?P<below1>\d))"
    rf"|(?P<a>{_INTEGER})/(?P<b>{_INTEGER})))",
    re.ASCII,
)
_INFINITIES = {r"\infty": math.inf, r"+\infty": math.inf, r"-\infty": -math.inf}
_QUANTITY = re.compile(r"(?P<number>\S*?[\d}])(?P<gap> ?)(?P<unit>[^\W\d_](?:[^\W\d_]|[ /*]|\^\{?-?\d\}?)*)")
_DEGREES = re.compile(r"\^\{?\\circ\}?$")
_EXPONENT = re.compile(r"\^\{?-?\d\}?")
_NO_BRACES_OR_SPACES = str.maketrans("", "", "{} ")
# Short units are listed by name, so that "2 xy" stays a product; words of four letters are units too ("5 apples").
# The first spelling of a row stands for the others; for other words, a plural equals its singular.
_SPELLINGS = [
    ["m", "meter", "meters", "metre", "metres"],
    ["cm", "centimeter", "centimeters", "centimetre", "centimetres"],
    ["mm", "millimeter", "millimeters", "millimetre", "millimetres"],
    ["km", "kilometer", "kilometers", "kilometre", "kilometres"],
    ["in", "inch", "inches"],
    ["ft", "foot", "feet"],
    ["g", "gram", "grams"],
    ["kg", "kilogram", "kilograms"],
    ["l", "L", "liter", "liters", "litre", "litres"],
    ["s", "sec", "second", "seconds"],
    ["min", "minute", "minutes"],
    ["h", "hr", "hrs", "hour", "hours"],
    ["°", "degree", "degrees", "deg"],
    ["$", "dollar", "dollars", "USD"],
    ["€", "euro", "euros", "EUR"],
    ["£", "pound", "pounds", "GBP"],
    ["cent", "cents"],
    *([unit] for unit in ("ms", "mg", "ml", "mL", "yd", "mi", "mph", "N", "J", "kJ", "W", "kW", "V", "A", "Pa", "mol")),
]
_UNITS = {spelling: row[0] for row in _SPELLINGS for spelling in row}
_CURRENCY = re.compile(r"(?P<sign>[+-]?)(?P<unit>\\?\$|€|£) ?")
_GLUED = {"mm", "cm", "km", "kg"}  # others, such as "2m" and "2mg", are more often products
_FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "arcsin", "arccos", "arctan", "mod"}
_FUNCTIONS |= {"det", "rank", "gcd", "lcm", "max", "min", "adj", "dim", "ker", "deg"}
_WORD = re.compile(r"[^\W\d_]+")
_WORDS = re.compile(r"[^\W\d_]+(?:[ '’.,-]+[^\W\d_]+)*")
_CHOICE = re.compile(r"(?:(?P<label>[A-Za-z]{3,}):? )?(?P<open>\()?(?P<letter>[A-Za-z])(?(open)\)|\)?)[.:]?")
_UNLABELLED = {"", "option", "choice", "answer"}


def number(text: str) -> Number | None:
    """The exact value of `compact` text: an integer or its power, a (repeating) decimal, a fraction, a mixed number.

    Infinity counts as a number. Exponents have at most four digits, so no value grows beyond 10^5 digits.
    """
    if text in _INFINITIES:
        return _INFINITIES[text]
    if not (found := _NUMBER.fullmatch(text)):
        return None
    sign = -1 if found["sign"] == "-" else 1
    if found["base"]:
        base, exponent = int(found["base"]), int(found["exponent"] or found["exponent1"])
        return sign * Fraction(base) ** exponent if base or exponent > 0 else None
    if found["decimal"]:
        value = Fraction(found["decimal"].replace(",", ""))
        if found["period"]:
            _, dot, places = found["decimal"].partition(".")
            repeated = Fraction(int(found["period"]), 10 ** len(places) * (10 ** len(found["period"]) - 1))
            return sign * (value + repeated) if dot else None
        exponent = int(found["e"] or found["power"] or found["digit"] or 0)
        return sign * value * Fraction(10) ** exponent
    above = int((found["above"] or found["above1"] or found["a"]).replace(",", ""))
    below = int((found["below"] or found["below1"] or found["b"]).replace(",", ""))
    if below == 0 or (found["whole"] and not 0 <= above < below):
        return None
    return sign * (int(found["whole"] or 0) + Fraction(above, below))


def quantity(tidied: str, text: str) -> tuple[Number | None, str]:
    """The number and its unit ("" for none, "%" for percent); (None, "") if the answer does not have that shape."""
    if text.endswith("%"):
        return number(text[:-1]), "%"
    if (value := number(text)) is not None:
        return value, ""
    if degrees := _DEGREES.search(text):
        return number(text[: degrees.start()]), "°"
    if currency := _CURRENCY.match(text):
        value = number(currency["sign"] + text[currency.end() :])
        return value, currency["unit"].removeprefix("\\")
    found = _QUANTITY.fullmatch(tidied)
    if found is None:
        return None, ""
    words = re.split(r"[ /*]+", _EXPONENT.sub("", found["unit"]).strip())
    if not all(word in _UNITS or len(word) > 3 for word in words) or not (found["gap"] or words[0] in _GLUED):
        return None, ""
    unit = _WORD.sub(lambda word: _UNITS.get(word[0], word[0].removesuffix("s")), found["unit"])
    return number(found["number"]), "%" if unit == "percent" else unit.translate(_NO_BRACES_OR_SPACES)


def is_measure(unit: str) -> bool:
    """Whether a unit is of measurement or money, which an answer may leave out, unlike "million" or "apples"."""
    return bool(unit) and all(part.rstrip("^-0123456789") in _UNITS for part in re.split("[/*]", unit))


def choice(tidied: str) -> tuple[str, str] | None:
    r"""The letter of "B", "(B)", "B." or "Option B", and its label: "box" for "Box B", usually ""."""
    found = _CHOICE.fullmatch(tidied)
    if found is None:
        return None
    label, letter = (found["label"] or "").casefold(), found["letter"]
    if label in _FUNCTIONS or (not label and letter.islower()):
        return None
    return letter.upper(), "" if label in _UNLABELLED else label


def is_words(tidied: str) -> bool:
    """Whether the text is prose, whose letters math-verify would multiply ("listen" = "silent").

    Prose has a word of at least three letters, or is "no".
    """
    words = _WORD.findall(tidied)
    return (
        _WORDS.fullmatch(tidied) is not None
        and (any(len(word) > 2 for word in words) or tidied.casefold() == "no")
        and not any(word in _FUNCTIONS for word in words)
    )
