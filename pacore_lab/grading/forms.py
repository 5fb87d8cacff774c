r"""Answers as far as text alone can read them, and when two of them are the same.

`exact.read` makes a `Form` of an answer. `decide` compares two forms, and returns None if only math-verify can tell.
The rules are deliberate, and differ from math-verify's where noted:

- A tuple is ordered; a set or a comma list is not. A list equals the set of its elements. Brackets matter: (1,2) is
  neither [1,2] nor {1,2} (to math-verify it is the latter). The text (1,2) may be a point or an interval, and equals
  either.
- An inequality between exact bounds is the interval of its solutions, whichever side it stands on (math-verify takes
  (1,2) for 1<x<2 but not the other way round). Unions of exact intervals are merged before they are compared.
- One side may leave out a name, a unit of measurement or a label ("x=5" and "5", "32 cm" and "32", "Box B" and "B");
  where both sides have one, they must agree. A set of one element is that element.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from pacore_lab.grading import numeric
from pacore_lab.grading.quantities import Number, is_measure

Bracket: TypeAlias = Literal["()", "[]", "(]", "[)"]
Kind: TypeAlias = Literal["number", "choice", "words", "text", "algebra", "list", "set", "union"] | Bracket
ORDERED = ("()", "[]", "(]", "[)")
UNORDERED = ("list", "set")
NOTHING: Mapping[Hashable, Hashable] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """An answer as far as text alone can read it.

    raw: the text for math-verify, without a name. text: its compact spelling, also without a name; equal texts are
    equal answers. kind: "text" is neither read nor given to math-verify (overlong, or digits side by side); "algebra"
    is left to math-verify. value, unit: of a number; unit "" for a bare one. label: of a choice. name: the x of "x = 5"
    and of "1 < x < 2".
    """

    raw: str
    text: str
    kind: Kind
    value: Number | None = None
    unit: str = ""
    label: str = ""
    name: str = ""
    parts: tuple[Form, ...] = ()

    def leaves(self) -> Iterator[Form]:
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()

    @property
    def key(self) -> Hashable:
        """`keyed`, with expressions the same only if their texts are."""
        return self.keyed()

    def keyed(self, algebra: Mapping[Hashable, Hashable] = NOTHING, *, drop: Set[str] = frozenset()) -> Hashable:
        """Forms with equal keys are equal answers, given the keys of expressions and the extras to ignore.

        algebra: keys of expressions by their text, and of bare numbers by `("number", value, "")`.
        drop: the extras to ignore: "name", "unit", "label".
        """
        key: Hashable
        if self.kind == "number":
            key = ("number", self.value, "" if "unit" in drop and is_measure(self.unit) else self.unit)
            key = algebra.get(key, key)
        elif self.kind == "algebra":
            key = algebra.get(self.text, ("algebra", self.text))
            key = algebra.get(key, key)
        elif self.kind == "choice":
            key = ("choice", self.text, "" if "label" in drop else self.label)
        elif self.kind in ORDERED:
            key = (self.kind, tuple(part.keyed(algebra) for part in self.parts))
        elif self.kind in (*UNORDERED, "union"):
            members = frozenset(part.keyed(algebra) for part in self.parts)
            key = next(iter(members)) if len(members) == 1 else ("union" if self.kind == "union" else "set", members)
        else:
            key = (self.kind, self.text)
        return ("=", self.name, key) if self.name and "name" not in drop else key

    @property
    def exact(self) -> bool:
        """Whether nothing in the form needs algebra."""
        return all(leaf.kind != "algebra" for leaf in self.leaves())


def decide(gold: Form, answer: Form) -> bool | None:
    """Whether an answer is as good as the gold answer, None if only algebra can tell. Symmetric, not transitive.

    It is more lenient than equality of keys. It forgives an extra that one side leaves out (see above) and the brackets
    of a tuple. It reads a percentage against a bare number both ways: 50% is as good as 50 (the question may say
    "percent") and as 0.5 (its value). Classes of answers do neither, since that would make 50 and 0.5 the same.
    """
    if gold.name and answer.name and gold.name != answer.name:
        return False
    if gold.text == answer.text and gold.kind == answer.kind and gold.label == answer.label:
        return True
    kinds = (gold.kind, answer.kind)
    if gold.parts or answer.parts or "set" in kinds:
        return _decide_parts(gold, answer)
    if kinds == ("number", "number"):
        return _decide_numbers(gold, answer)
    if kinds == ("choice", "choice"):
        return gold.text == answer.text and (gold.label == answer.label or not (gold.label and answer.label))
    if "words" in kinds or "text" in kinds or gold.label or answer.label:
        return False
    if set(kinds) == {"choice", "number"}:
        return False
    return True if kinds == ("algebra", "algebra") and numeric.same(gold.text, answer.text) else None


def _decide_numbers(gold: Form, answer: Form) -> bool | None:
    """Units are not converted (1 m is not 100 cm); math-verify decides other words ("5 apples", "5 million")."""
    assert gold.value is not None
    assert answer.value is not None
    same = gold.value == answer.value
    if gold.unit == answer.unit:
        return same
    named, bare = (gold, answer) if gold.unit else (answer, gold)
    if bare.unit:
        return False
    if named.unit == "%":
        return same or named.value == 100 * bare.value  # type: ignore[operator]
    return same if is_measure(named.unit) else None


def _decide_parts(gold: Form, answer: Form) -> bool | None:
    if gold.exact and answer.exact and gold.keyed(drop={"name"}) == answer.keyed(drop={"name"}):
        return True
    kinds = {gold.kind, answer.kind}
    if "algebra" in kinds:
        return None
    if not (kinds <= {*ORDERED, *UNORDERED, "union"}):  # a number or a word: only a set can reduce to it
        return False if (gold.exact and answer.exact) or kinds & {*ORDERED, "words", "text"} else None
    if kinds <= {"()", "list"} or (len(kinds) == 1 and gold.kind in ORDERED):
        in_order = _decide_in_order(gold, answer)
        if in_order is not False or kinds != {"list"}:
            return in_order
    elif kinds & {*ORDERED}:  # other brackets, or a set; only algebra can merge unions
        return None if "union" in kinds and not (gold.exact and answer.exact) else False
    return False if gold.exact and answer.exact else None


def _decide_in_order(gold: Form, answer: Form) -> bool | None:
    if len(gold.parts) != len(answer.parts):
        return False
    verdicts = {decide(first, second) for first, second in zip(gold.parts, answer.parts, strict=True)}
    return False if False in verdicts else None if None in verdicts else True
