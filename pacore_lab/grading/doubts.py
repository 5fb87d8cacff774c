"""Reasons to doubt a grade, as data: constant texts that can be counted. They never change a score."""

from __future__ import annotations

import re

from pacore_lab.grading.answers import boxes, tidy
from pacore_lab.types import Trajectory

MISSED = "probable extraction miss: an answer is stated outside a box"
UNCLOSED = "probable extraction miss: the last box is not closed"
SEVERAL = "several different boxes in the conclusion"
TRUNCATED = "truncated at max_tokens"
UNFINISHED = "truncated thinking: <think> without </think>"
TAIL = 400
"""How many characters at the end of a conclusion are searched for a final answer."""

_STATED = re.compile(
    r"(?:final answer|answer|result|solution)\W{0,8}(?:is|are|be|equals|=|:)\W{0,8}[\w\\(\[{$.-]"
    r"|^\W{0,8}(?:final )?answer\W{0,4}[:=]|####\s*\S",
    re.IGNORECASE | re.MULTILINE,
)
_OPENED = re.compile(r"\\(?:boxed|fbox)\s*\{")


def doubts(trajectory: Trajectory, answer: str | None, score: float | None) -> tuple[str, ...]:
    """The warnings for `Grade.warnings`; `answer` is what the box rule extracted.

    A stated answer is searched for only if the box gave no answer or a wrong one, and only after the last box.
    """
    if trajectory.error:
        return ()
    text = trajectory.conclusion
    found = [TRUNCATED] if trajectory.truncated else []
    thinking = trajectory.content
    if thinking.rfind("<think>") > thinking.rfind("</think>"):
        found.append(UNFINISHED)
    if found:  # then there is no real conclusion
        return tuple(found)
    ends = boxes(text)
    if len({tidy(content) for content, _ in ends}) > 1:
        found.append(SEVERAL)
    rest = text[max((end for _, end in ends), default=0) :]
    if _OPENED.search(rest):
        found.append(UNCLOSED)
    elif (answer is None or score == 0.0) and _STATED.search(rest[-TAIL:]):
        found.append(MISSED)
    return tuple(found)
