"""Reads answers that have parts: tuples, intervals and their unions, sets, lists, inequalities, named values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from pacore_lab.grading.answers import MAX_CHARS, compact, tidy
from pacore_lab.grading.forms import ORDERED, UNORDERED, Bracket, Form, Kind
from pacore_lab.grading.quantities import Number, choice, is_words, number, quantity

MAX_DEPTH = 6
MAX_PARTS = 200

_GREEK = r"\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|varphi|psi|omega|Delta)"
_NAME = rf"(?:[A-Za-z]|[A-Z]{{2,3}}|{_GREEK})(?:_(?:\w|\{{\w+\}}))?'?(?:\((?:[a-z]|\d+)\))?|\([a-z](?:,[a-z])+\)"
_NAMED = re.compile(rf"(?P<name>{_NAME})(?:=|\\in(?![a-z]))(?P<value>[^=<>]+)")
_FUNCTION_OF = re.compile(r".*\([a-z]\)")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_FREE_LETTER = re.compile(r"[a-df-hj-zA-Z]")
_RELATION = re.compile(r"(<|>|\\l[et](?![a-z])|\\g[et](?![a-z]))")
_AND = re.compile(r",? (?:and|or) ")
_SIDE_BY_SIDE = re.compile(r"(?:^|[^_\d])\d+ \d")
_DECIMAL_COMMA = re.compile(r"-?0,\d{3}")
_PM = re.compile(r"\\pm(?![a-zA-Z])")
_CUP = re.compile(r"\\cup(?![a-zA-Z])")
_EMPTY = (r"\emptyset", r"\varnothing", r"\{\}")
_REALS = (r"\mathbb{R}", r"\R", r"\Re")
_OPEN, _CLOSE = "([{", ")]}"


def read(answer: str) -> Form:
    """The form of an answer. Takes bounded time whatever the text, and never raises."""
    if len(answer) > MAX_CHARS:
        return Form(raw=answer, text=" ".join(answer.split()), kind="text")
    return _read_short(answer)


@lru_cache(maxsize=4096)
def _read_short(answer: str) -> Form:
    form = _read(tidy(answer), MAX_DEPTH)
    return form if form.name else replace(form, raw=answer)


def _read(tidied: str, depth: int) -> Form:
    text = compact(tidied)
    value, unit = quantity(tidied, text)
    if value is not None:
        return Form(raw=text, text=text, kind="number", value=value, unit=unit)
    if chosen := choice(tidied):
        letter, label = chosen
        return Form(raw=text, text=letter, kind="choice", label=label)
    if depth and (form := _structure(tidied, text, depth - 1)):
        return replace(form, raw=text, text=text) if form.parts else form
    if is_words(tidied):
        return Form(raw=text, text=text.casefold(), kind="words")
    return Form(raw=text, text=text, kind="algebra" if text and not _SIDE_BY_SIDE.search(text) else "text")


def _structure(tidied: str, text: str, depth: int) -> Form | None:
    """A tuple, interval, union, set, list, inequality or named value; None for anything else."""
    if text in _EMPTY:
        return Form(raw=text, text=text, kind="set")
    if text in _REALS:
        return _interval(-math.inf, math.inf, "()")
    pieces = [piece for part in _split(tidied) for piece in _AND.split(part)]
    if len(pieces) > 1 and not _DECIMAL_COMMA.fullmatch(text):
        return _list([piece.strip() for piece in pieces], depth) if len(pieces) <= MAX_PARTS else None
    if (named := _NAMED.fullmatch(text)) and (form := _named(named["name"], named["value"], depth)):
        return form
    if form := _inequality(text):
        return form
    if len(halves := _PM.split(tidied)) == 2:
        return _group("list", [_read(halves[0] + sign + halves[1], depth) for sign in ("+", "-")])
    if len(united := _CUP.split(tidied)) > 1 and len(united) <= MAX_PARTS:
        return _union([_read(part.strip(), depth) for part in united])
    return _bracketed(tidied, depth)


def _group(kind: Kind, parts: list[Form]) -> Form:
    return Form(raw="", text="", kind=kind, parts=tuple(parts))


def _list(pieces: list[str], depth: int) -> Form | None:
    """A list of elements; "x=1 or x=2" and "x=1, 2" are both x = {1, 2}, and "x<1 or x>2" is a union."""
    if not all(pieces):
        return None
    parts = [_read(piece, depth) for piece in pieces]
    if any(part.kind in ("words", "text") for part in parts):
        return None  # prose with a comma in it
    names = {part.name for part in parts}
    if len(names) == 1 or (parts[0].name and not any(part.name for part in parts[1:])):
        name, parts = parts[0].name, [replace(part, name="") for part in parts]
        intervals = name and all(part.kind in ORDERED for part in parts)
        return replace(_union(parts) if intervals else _group("list", _flat(parts)), name=name)
    return _group("list", _flat(parts))


def _flat(parts: list[Form]) -> list[Form]:
    r"""The parts, with the elements of any nested list in its place (`3, \pm 2`)."""
    return [one for part in parts for one in (part.parts if part.kind == "list" and not part.name else (part,))]


def _named(name: str, value: str, depth: int) -> Form | None:
    """A named value; a function (f(x) = 2x+1) counts, an equation between variables (y = 2x+1) does not."""
    form = _read(value, depth)
    if form.name or form.kind in ("words", "text"):
        return None
    constant = form.kind in ("number", "choice") or not _FREE_LETTER.search(_COMMAND.sub("", value))
    function = form.kind == "algebra" and _FUNCTION_OF.fullmatch(name)
    return replace(form, name=name) if constant or function else None


def _inequality(text: str) -> Form | None:
    """x > 5 as (5, infinity), 1 < x < 2 as (1, 2), if the bounds are exact numbers."""
    parts = _RELATION.split(text)
    if len(parts) not in (3, 5):
        return None
    sides, signs = parts[::2], ["<>"[">" in sign or r"\g" in sign] + "="[: sign[-1] == "e"] for sign in parts[1::2]]
    if len({sign[0] for sign in signs}) != 1:
        return None
    if signs[0][0] == ">":
        sides, signs = sides[::-1], signs[::-1]
    if len(sides) == 2:
        if _FREE_LETTER.fullmatch(sides[0]):
            sides, signs = [r"-\infty", *sides], ["<", *signs]
        else:
            sides, signs = [*sides, r"\infty"], [*signs, "<"]
    low, high = number(sides[0]), number(sides[2])
    if low is None or high is None or not _FREE_LETTER.fullmatch(sides[1]):
        return None
    brackets = ("[" if "=" in signs[0] else "(") + ("]" if "=" in signs[1] else ")")
    return replace(_interval(low, high, brackets), name=sides[1])


def _bracketed(tidied: str, depth: int) -> Form | None:
    left, right = tidied[:1], tidied[-1:]
    if tidied.startswith(r"\{") and tidied.endswith(r"\}"):
        inner, kind = tidied[2:-2], "set"
    elif left + right == "{}" and "," in tidied:
        inner, kind = tidied[1:-1], "set"
    elif left in ("(", "[") and right in (")", "]"):
        inner, kind = tidied[1:-1], left + right
    else:
        return None
    parts = [part.strip() for part in _split(inner)]
    if not all(parts) or not _balanced(inner) or len(parts) > MAX_PARTS:
        return None
    if len(parts) == 1 and kind == "()":
        return _read(parts[0], depth)
    forms = [_read(part, depth) for part in parts]
    if kind == "set":
        return _group("set", _flat(forms))
    if len(forms) == 2:
        return _group(_open_at_infinity(forms, kind), forms)
    if len(forms) > 2 and kind in ("()", "[]"):
        return _group("()", forms)  # a vector, whatever its brackets
    return None


def _open_at_infinity(forms: list[Form], kind: str) -> Bracket:
    left = "(" if forms[0].value == -math.inf else kind[0]
    right = ")" if forms[1].value == math.inf else kind[1]
    return left + right  # type: ignore[return-value]


def _interval(low: Number, high: Number, brackets: str) -> Form:
    ends = [Form(raw="", text=str(end), kind="number", value=end) for end in (low, high)]
    return _group(_open_at_infinity(ends, brackets), ends)


def _union(parts: list[Form]) -> Form:
    """The union; if all ends are exact bare numbers, merged into disjoint intervals: [1,2] and [2,3] are [1,3]."""
    pieces = []  # (low end, high end): each a number, and +1 just beyond it, 0 at it, -1 just short of it
    for part in parts:
        points = part.parts if part.kind in UNORDERED else ()
        ends: list[tuple[Form, ...]] = [(one, one) for one in points] or [part.parts]
        for pair in ends:
            if (part.kind not in ORDERED and not points) or len(pair) != 2:
                return _group("union", parts)
            low, high = pair[0].value, pair[1].value
            if low is None or high is None or pair[0].unit or pair[1].unit:
                return _group("union", parts)
            brackets = part.kind if part.kind in ORDERED else "[]"
            pieces.append(((low, int(brackets[0] == "(")), (high, -int(brackets[1] == ")"))))
    merged: list[tuple[tuple[Number, int], tuple[Number, int]]] = []
    for low_end, high_end in sorted(piece for piece in pieces if piece[0] <= piece[1]):
        if merged and (low_end[0], low_end[1] - 1) <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high_end))
        else:
            merged.append((low_end, high_end))
    forms = [_interval(low[0], high[0], "[("[low[1]] + "])"[-high[1]]) for low, high in merged]
    return forms[0] if len(forms) == 1 else _group("union", forms) if forms else Form(raw="", text="", kind="set")


def _depths(text: str) -> Iterator[tuple[int, str, int]]:
    """Each character's place, the character, and how many brackets are open after it."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        yield place, character, depth


def _split(text: str) -> list[str]:
    """The pieces between commas that are outside all brackets."""
    cuts = [place for place, character, depth in _depths(text) if character == "," and depth == 0]
    if re.search(r"\\begin\{", text):
        cuts = []
    starts = [0, *(cut + 1 for cut in cuts)]
    return [text[start:end] for start, end in zip(starts, [*cuts, len(text)], strict=True)]


def _balanced(text: str) -> bool:
    """Whether every bracket that closes inside also opened inside: "1,2),(3,4" is not the inside of one pair."""
    depths = [depth for _, _, depth in _depths(text)]
    return min(depths, default=0) >= 0 and (not depths or depths[-1] == 0)
