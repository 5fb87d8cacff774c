"""Answers as text: the last box, and a canonical spelling, so that two spellings of one answer are the same string.

Nothing here evaluates an answer. Every function takes time linear in the length of its text, whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_CHARS = 4000
"""A longer answer is not read as mathematics; it equals only the same text."""

_BOX_TOKEN = re.compile(
    r"(?P<box>\\{1,2}(?:boxed|fbox)(?![a-zA-Z]))\s*(?:(?P<open>\{)|(?P<bare>[+-]?\d[\d.,/]*|[A-Z](?![A-Za-z])))?"
    r"|\\[\s\S]"  # an escaped character: \{ and \} do not nest
    r"|(?P<brace>[{}])"
)


def last_box(text: str) -> str | None:
    r"""The content of the last non-empty `\boxed{...}` or `\fbox{...}` with balanced braces; `\boxed 5` counts too.

    The last box is the one that opens last, so the innermost of nested boxes counts. One pass, no recursion.
    """
    found, found_at = None, -1
    for opened, start, stop, _ in _closed_boxes(text):
        if opened > found_at and (content := text[start:stop].strip()):
            found, found_at = content, opened
    return found


def boxes(text: str) -> list[tuple[str, int]]:
    """The content of each non-empty outermost box, and the position where the box ends; at most the last 100 boxes."""
    outermost: list[tuple[int, int, int, int]] = []
    for box in _closed_boxes(text):
        while outermost and outermost[-1][0] > box[0]:  # inside this one
            outermost.pop()
        outermost.append(box)
    return [(content, end) for _, start, stop, end in outermost[-100:] if (content := text[start:stop].strip())]


def _closed_boxes(text: str) -> Iterator[tuple[int, int, int, int]]:
    """Where each box opens, where its content starts and stops, and where it ends, in the order the boxes close."""
    if "boxed" not in text and "fbox" not in text:
        return
    open_braces: list[tuple[int, int]] = []  # content start, box start (-1: a plain brace)
    for token in _BOX_TOKEN.finditer(text):
        if token["open"]:
            open_braces.append((token.end(), token.start()))
        elif token["bare"]:
            start = token.start("bare")
            yield token.start(), start, start + len(token["bare"].rstrip(".,/")), token.end()
        elif token["brace"] == "{":
            open_braces.append((token.end(), -1))
        elif token["brace"] == "}" and open_braces:
            start, opened = open_braces.pop()
            if opened >= 0:
                yield opened, start, token.start(), token.end()


_SIGNS = {
    **dict.fromkeys("\u2212\u2013\ufe63\uff0d", "-"),
    **dict.fromkeys("\u2009\u202f", r"\,"),
    **dict.fromkeys("\u00a0\u200a\u2002\u2003", " "),
    **dict.fromkeys("\u200b\u2060\ufeff", ""),
    **{"²": "^{2}", "³": "^{3}", "π": r"\pi ", "∞": r"\infty ", "×": r"\times ", "·": r"\cdot ", "°": r"^{\circ}"},
    **{"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∈": r"\in ", "∅": r"\emptyset "},
}
_UNICODE = str.maketrans(_SIGNS)
_PLAIN_COMMAND = re.compile(r"(?<![a-zA-Z\\])(?<!text\{)(?<!rm\{)(?<!name\{)(pi|sin|cos|tan|cot|ln|log)(?![a-zA-Z])")
_FINAL_FACTOR = re.compile(r"((?<![a-zA-Z\d])\d+|\})(?![ie]$)([a-zA-Z]{1,3})$")
_NO_INK = re.compile(r"\\!|\\(?:left|right|displaystyle)(?![a-zA-Z])")
_THIN_SPACE_IN_NUMBER = re.compile(r"(?<=\d)(?:\\[,;: ]|~)(?=\d{3}(?!\d))")
_SPACING = re.compile(r"\\[,;: ]|~|\\q?quad(?![a-zA-Z])")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_SHORT_FRACTION = re.compile(r"\\frac ?(\d) ?([\da-zA-Z])")
_UPRIGHT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
_SYNONYM = re.compile(r"\\(?:leq|geq|neq|[lr]angle)(?![a-zA-Z])|\\degree(?![a-zA-Z])|\^\\circ(?![a-zA-Z])|\\%")
_SYNONYMS = {r"\leq": r"\le", r"\geq": r"\ge", r"\neq": r"\ne", r"\langle": "(", r"\rangle": ")", r"\%": "%"}
_KEPT_SPACE = re.compile(r"((?<=\d) (?=\d)|(?<=[^\W\d_]) (?=[^\W\d_])|(?<=\d,) (?=\d{3}(?!\d)))| ")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), (r"\boxed{", "}"), ("**", "**"))


def unwrap(answer: str) -> str:
    r"""The answer without its wrapping: `$`, `\(`, `\[`, `**`, another box, a final full stop."""
    answer = answer.strip()
    for _ in range(3):
        for left, right in _WRAPPERS:
            inner = answer[len(left) : -len(right)]
            if answer.startswith(left) and answer.endswith(right) and inner and left not in inner:
                answer = inner.strip()
        if answer.endswith(".") and not answer.endswith((r"\.", "..")):
            answer = answer[:-1].rstrip()
    return answer


def plain(answer: str) -> str:
    r"""The unwrapped answer, with Unicode signs and a bare `pi` or `sin` as LaTeX, and `\dfrac12` as `\frac{1}{2}`."""
    answer = _PLAIN_COMMAND.sub(r"\\\1 ", unwrap(answer).translate(_UNICODE))
    return _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", _FRACTION.sub(r"\\frac", answer))


def latex(answer: str) -> str:
    """The answer as math-verify should read it. Unaided, it takes a final "m" for a unit and so reads n+2m as n+2."""
    return _FINAL_FACTOR.sub(r"\1\\cdot{\2}", plain(answer))


def tidy(answer: str) -> str:
    r"""The answer in one spelling of LaTeX spacing, fractions, `\text{...}` and signs, with single spaces.

    A thin space inside a number (`1\,234`) is removed. An ordinary space stays: "1 234" may be two numbers.
    """
    if len(answer) > MAX_CHARS:
        return " ".join(answer.split())
    answer = _NO_INK.sub("", plain(answer))
    answer = _SPACING.sub(" ", _THIN_SPACE_IN_NUMBER.sub("", answer))
    answer = _UPRIGHT.sub(r" \1 ", answer)
    answer = _SYNONYM.sub(lambda found: _SYNONYMS.get(found[0], r"^{\circ}"), answer).replace("{,}", ",")
    return " ".join(answer.split())


def compact(tidied: str) -> str:
    """`tidy` text without meaningless spaces. Spaces that separate "1 2", "1, 234" and "a b" stay."""
    return _KEPT_SPACE.sub(lambda space: space[1] or "", tidied)
