"""What can be decided without computer algebra: exact numbers, quantities with units, and plain words.

`read` turns an answer into a `Form`; `decide` compares two forms and returns None where only math-verify can tell.
Numbers are `fractions.Fraction`, so 0.5 equals 1/2 and 0.333333 does not equal 1/3, and 10^-7 is not 4*10^-7.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from pacore_lab.grading.answers import MAX_CHARS, compact, tidy

_INTEGER = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)(?:"
    rf"(?P<decimal>{_INTEGER}(?:\.\d*)?|\.\d+)"
    r"(?:\\(?:overline|bar)\{(?P<period>\d+)\}"
    r"|[eE](?P<e>[+-]?\d{1,4})|\\(?:times|cdot)10\^(?:\{(?P<power>[+-]?\d{1,4})\}|(?P<digit>\d)))?"
    rf"|(?:(?P<whole>\d+)(?: (?=\d)|(?=\\)))?(?:"
    rf"\\frac(?:\{{(?P<above>-?{_INTEGER})\}}|(?P<above1>\d))(?:\{{(?P<below>-?{_INTEGER})\}}|(?P<below1>\d))"
    rf"|(?P<a>{_INTEGER})/(?P<b>{_INTEGER})))",
    re.ASCII,
)
_QUANTITY = re.compile(r"(?P<number>\S*?[\d}])(?P<gap> ?)(?P<unit>[^\W\d_](?:[^\W\d_]|[ /*]|\^\{?-?\d\}?)*)")
_EXPONENT = re.compile(r"\^\{?-?\d\}?")
_NO_BRACES_OR_SPACES = str.maketrans("", "", "{} ")
# Short units are known by name, so that "2 xy" stays a product; any word of four letters is a unit too ("5 apples").
# The first spelling of a row stands for the others; elsewhere a plural equals its singular.
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
    *([unit] for unit in ("ms", "mg", "ml", "mL", "yd", "mi", "mph", "N", "J", "kJ", "W", "kW", "V", "A", "Pa", "mol")),
]
_UNITS = {spelling: row[0] for row in _SPELLINGS for spelling in row}
_GLUED = {"mm", "cm", "km", "kg"}  # "2m" and "2mg" are more often products
_FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "arcsin", "arccos", "arctan", "mod"}
_WORD = re.compile(r"[^\W\d_]+")
_WORDS = re.compile(r"[^\W\d_]+(?:[ '’.,-]+[^\W\d_]+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """An answer as far as text alone can read it.

    text: equal texts are equal answers. value, unit: set for an exact number, unit "" for a bare one.
    algebra: whether math-verify is worth asking (not for words, overlong text, or digits side by side).
    """

    raw: str
    text: str
    value: Fraction | None = None
    unit: str = ""
    algebra: bool = True

    @property
    def key(self) -> tuple[Fraction, str] | str:
        """Forms with equal keys are equal answers."""
        return self.text if self.value is None else (self.value, self.unit)


def read(answer: str) -> Form:
    """The form of an answer. Linear in its length; never raises."""
    if len(answer) > MAX_CHARS:
        return Form(raw=answer, text=" ".join(answer.split()), algebra=False)
    tidied = tidy(answer)
    text = compact(tidied)
    value, unit = _quantity(tidied, text)
    if value is not None:
        return Form(raw=answer, text=text, value=value, unit=unit)
    if _is_words(tidied):
        return Form(raw=answer, text=text.casefold(), algebra=False)
    return Form(raw=answer, text=text, algebra=bool(text) and not re.search(r"\d \d", text))


def decide(gold: Form, answer: Form) -> bool | None:
    """Whether two answers are the same, None where it takes algebra to tell.

    Numbers compare exactly. A percentage equals only a percentage. Other units must agree where both sides have one;
    a bare number equals the same number with a unit of measurement, as in math-verify, which is asked about other words
    ("5 apples", "5 million"). Units are not converted: 1 m is not 100 cm.
    """
    if gold.text == answer.text or gold.key == answer.key:
        return True
    if gold.value is not None and answer.value is not None:
        named = gold.unit or answer.unit  # the keys differ, so where the units agree the values do not
        if named == "%" or (gold.unit and answer.unit) or not named:
            return False
        if all(part.rstrip("^-0123456789") in _UNITS for part in re.split("[/*]", named)):
            return gold.value == answer.value
    return None if gold.algebra and answer.algebra else False


def number(text: str) -> Fraction | None:
    """The exact value of `compact` text: an integer, (repeating) decimal, fraction, mixed number, or a power of ten."""
    if len(text) > MAX_CHARS or not (found := _NUMBER.fullmatch(text)):
        return None
    sign = -1 if found["sign"] == "-" else 1
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


def _quantity(tidied: str, text: str) -> tuple[Fraction | None, str]:
    """The number and its unit, (None, "") where the answer is not of that shape."""
    if text.endswith("%"):
        return number(text[:-1]), "%"
    if (value := number(text)) is not None:
        return value, ""
    found = _QUANTITY.fullmatch(tidied)
    if found is None:
        return None, ""
    words = re.split(r"[ /*]+", _EXPONENT.sub("", found["unit"]).strip())
    if not all(word in _UNITS or len(word) > 3 for word in words) or not (found["gap"] or words[0] in _GLUED):
        return None, ""
    unit = _WORD.sub(lambda word: _UNITS.get(word[0], word[0].removesuffix("s")), found["unit"])
    return number(found["number"]), "%" if unit == "percent" else unit.translate(_NO_BRACES_OR_SPACES)


def _is_words(tidied: str) -> bool:
    """Prose, whose letters math-verify would multiply ("listen" = "silent"): a word of three letters in it, or "no"."""
    words = _WORD.findall(tidied)
    return (
        _WORDS.fullmatch(tidied) is not None
        and (any(len(word) > 2 for word in words) or tidied.casefold() == "no")
        and not any(word in _FUNCTIONS for word in words)
    )
