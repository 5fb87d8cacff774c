"""Equivalence classes of many answers at once, blind to the ground truth and to the order of the answers.

Exact answers are classed by their keys (`Form.keyed`), and expressions that agree to 25 digits are one class
(`numeric`). Each remaining expression gets a numeric fingerprint, here or from a worker in one round trip. math-verify
then compares only expressions whose fingerprints are near, in one more round trip per class of a neighbourhood, so
usually one. An expression inside a tuple, set or interval is classed like any other.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

from pacore_lab.grading import numeric
from pacore_lab.grading.answers import latex
from pacore_lab.grading.cache import Question
from pacore_lab.grading.forms import Form
from pacore_lab.grading.quantities import is_measure
from pacore_lab.grading.readers import Pool, Ungraded

TOLERANCE = 1e-5
"""Relative above 1, absolute below: wider than any rounding math-verify forgives (six places)."""
MAX_COMPARED = 32
"""How many expressions with near fingerprints, or without one, are compared pairwise; the rest are compared as text.

The shortest expressions are compared: at most 496 questions per group, when no two are the same.
"""

Numbers: TypeAlias = tuple[float, ...]


async def keys(forms: Iterable[Form], pool: Pool) -> dict[Form, Hashable]:
    """The class of each form.

    A name, unit of measurement or label counts only if the forms hold two different ones. "x = 5" is "5" unless another
    form names y: it cannot be the same as both 5 and y = 5, since x = 5 is not y = 5. A percentage is never a number.
    Answers stay apart if math-verify fails or times out.
    """
    forms = list(forms)
    drop = {"name"} if len({form.name for form in forms} - {""}) == 1 else set()
    if len({form.label for form in forms} - {""}) == 1:
        drop.add("label")
    if len({form.unit for form in forms if is_measure(form.unit)}) == 1:
        drop.add("unit")
    leaves = {leaf for form in forms for leaf in form.leaves()}
    algebra = await _classes(leaves, pool)
    return {form: form.keyed(algebra, drop=drop) for form in forms}


async def _classes(leaves: Iterable[Form], pool: Pool) -> dict[Hashable, Hashable]:
    """The key of each expression's text, and of each number that math-verify identifies with an expression."""
    leaves = sorted(leaves, key=lambda leaf: (len(leaf.text), leaf.text, leaf.raw))
    spelled: dict[str, str] = {}  # text -> what math-verify reads
    for leaf in leaves:
        if leaf.kind == "algebra":
            spelled.setdefault(leaf.text, latex(leaf.raw))
    found: dict[Hashable, Hashable] = {}
    printed: defaultdict[str, dict[str, Numbers]] = defaultdict(dict)
    values = {text: value for text in spelled if (value := numeric.evaluate(text))}
    identical = _identical(values)
    exact = {identical[text]: value.exact for text, value in values.items() if value.exact is not None}
    for text, first in identical.items():
        if first in exact:
            found[text] = ("number", exact[first], "")
        elif text == first:
            printed["value"][text] = values[text].numbers
    unread = [text for text in spelled if text not in values]
    prints = await pool.ask([("fingerprint", spelled[text]) for text in unread])
    for text, fingerprint in zip(unread, prints, strict=True):
        if isinstance(fingerprint, Ungraded):
            found[text] = ("algebra", text)
        elif fingerprint is None:
            printed[""][text] = ()
        elif "exact" in fingerprint:
            found[text] = ("number", Fraction(fingerprint["exact"]), "")
        else:
            printed[fingerprint["kind"]][text] = tuple(number for pair in fingerprint["at"] for number in pair)
    groups = [group[:MAX_COMPARED] for numbers in printed.values() for group in _neighbours(numbers)]
    firsts = await _compare(groups, spelled, pool)
    found |= {text: ("algebra", first) for text, first in firsts.items()}
    found |= {text: found.get(first, ("algebra", first)) for text, first in identical.items()}
    numbers = {leaf.value for leaf in leaves if isinstance(leaf.value, Fraction)} | set(exact.values())
    constants = {text: at for text, at in printed["value"].items() if firsts.get(text) == text}
    return found | await _decimals(numbers, constants, spelled, pool)


def _identical(values: dict[str, numeric.Value]) -> dict[str, str]:
    """Text -> the first text equal to it to 25 digits, or itself if agreement at these points proves nothing."""
    firsts = {text: text for text in values}
    groups = _neighbours({text: value.numbers for text, value in values.items() if value.general})
    for group in groups:
        for place, text in enumerate(group):
            same = (other for other in group[:place] if numeric.near(values[other], values[text]))
            firsts[text] = firsts[next(same, text)]
    return firsts


def _neighbours(numbers: dict[str, Numbers]) -> list[list[str]]:
    """Groups of texts, in which texts with near numbers share a group; each group keeps the given order."""
    place = {text: order for order, text in enumerate(numbers)}
    groups = [list(numbers)]
    for column in range(max(map(len, numbers.values()), default=0)):
        parts = []
        for group in groups:
            ordered = sorted(group, key=lambda text: numbers[text][column])
            parts.append(ordered[:1])
            for before, text in itertools.pairwise(ordered):
                if _near(numbers[before][column], numbers[text][column]):
                    parts[-1].append(text)
                else:
                    parts.append([text])
        groups = parts
    return [sorted(group, key=place.__getitem__) for group in groups]


def _near(first: float, second: float) -> bool:
    return abs(first - second) <= TOLERANCE * max(1.0, abs(first), abs(second))


async def _compare(groups: Sequence[Sequence[str]], spelled: dict[str, str], pool: Pool) -> dict[str, str]:
    """Text -> the first text of its class: each text joins the first earlier class whose first text equals it.

    math-verify's relation is not transitive; this turns it into classes. All groups advance together.
    """
    firsts: dict[str, str] = {}
    waiting = [list(group) for group in groups if group]
    while waiting:
        firsts |= {group[0]: group[0] for group in waiting}
        pairs = [(group[0], text) for group in waiting for text in group[1:]]
        verdicts = await pool.ask([_question(spelled[first], spelled[text]) for first, text in pairs])
        firsts |= {text: first for (first, text), same in zip(pairs, verdicts, strict=True) if same is True}
        waiting = [rest for group in waiting if (rest := [text for text in group if text not in firsts])]
    return firsts


async def _decimals(
    values: Iterable[Fraction], constants: dict[str, Numbers], spelled: dict[str, str], pool: Pool
) -> dict[Hashable, Hashable]:
    """Number -> the key of the irrational constant that math-verify takes it for (1.414214 for the root of 2).

    Two different decimals can share a class only if the constant itself is among the answers.
    """
    ordered = sorted((numbers[0], order, text) for order, (text, numbers) in enumerate(constants.items()))
    pairs: list[tuple[Fraction, str]] = []
    for value in values:
        if abs(value) > 1e15 or value.denominator.bit_length() > 200:  # math-verify does not round these
            continue
        reach = 2 * TOLERANCE * max(1.0, abs(float(value)))
        low = bisect.bisect_left(ordered, (float(value) - reach, -1, ""))
        high = bisect.bisect_right(ordered, (float(value) + reach, len(ordered), ""))
        near = sorted(ordered[low:high], key=lambda entry: entry[1])
        vector = (float(value), 0.0, float(value), 0.0)
        pairs += [(value, t) for _, _, t in near if all(map(_near, vector, constants[t]))]
    verdicts = await pool.ask([_question(spelled[text], _decimal(value)) for value, text in pairs])
    found: dict[Hashable, Hashable] = {}
    for (value, text), same in zip(pairs, verdicts, strict=True):
        if same is True:
            found.setdefault(("number", value, ""), ("algebra", text))
    return found


def _question(first: str, second: str) -> Question:
    return ("equal", first, second, True)


def _decimal(value: Fraction) -> str:
    """The value as a finite decimal if it has one, else as a fraction: math-verify rounds only decimals."""
    places = 0
    rest: Any = value
    while rest.denominator > 1 and places < 20:
        rest, places = rest * 10, places + 1
    if rest.denominator > 1 or not places:
        return rf"\frac{{{value.numerator}}}{{{value.denominator}}}" if value.denominator > 1 else str(value.numerator)
    digits = f"{abs(rest.numerator):0{places + 1}d}"
    return "-" * (value < 0) + f"{digits[:-places]}.{digits[-places:]}"
