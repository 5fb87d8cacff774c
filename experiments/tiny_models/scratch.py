"""The worked solutions that the tiny models learn to write.

A sum is worked digit by digit, least significant digit first. The letters (a = ones) let attention find a digit by its
place instead of by counting:

    <think>
    d4c7b0a8+c5b9a6        the operands, every digit after the letter of its place
    a8614b0910c7513d4005   place by place: letter, two digits, carry out, digit of the sum
    d5c3b0a4               the sum with its letters
    </think>

    The answer is \\boxed{5304}.

A search (`pacore_lab.problems.search`) is a box and its contents, then each number in turn with those that follow it,
and whether the last is the one asked for. The conclusion is the number found, or the box ruled out and a guess, which
may be any other candidate (guesses gathered on a few numbers would make a majority vote look weaker than it must be):

    <think>
     C 44 91 73: 44 48 82 24 42 no; 91 10 01 11 12 no; 73 36 63 39 96 yes
    </think>

    yes: C. \\boxed{73}                 no: C. \\boxed{80}
"""

import random
from collections.abc import Collection
from string import ascii_lowercase

from pacore_lab.problems.search import LABELS, Hunt, generate

CONCLUSIONS = (
    "\\boxed{{{}}}",
    "The answer is \\boxed{{{}}}.",
    "So the result is \\boxed{{{}}}.",
    "Therefore, the final answer is \\boxed{{{}}}.",
)


def response(thought: str, conclusion: str) -> str:
    return f"<think>\n{thought}\n</think>\n\n{conclusion}"


def sum_solution(a: int, b: int, rng: random.Random) -> str:
    """A whole response, right in every digit; only the wording of its conclusion is drawn."""
    return response(work_out(a, b), sum_conclusion(a + b, rng))


def sum_conclusion(answer: int, rng: random.Random) -> str:
    """One of the short forms in which these models conclude."""
    return rng.choice(CONCLUSIONS).format(answer)


def work_out(a: int, b: int) -> str:
    """The lines between the think marks."""
    steps, carry = [], 0
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = _digit(a, place), _digit(b, place)
        carry, digit = divmod(x + y + carry, 10)
        steps.append(f"{ascii_lowercase[place]}{x}{y}{carry}{digit}")
    return f"{_marked(a)}+{_marked(b)}\n{''.join(steps)}\n{_marked(a + b)}"


def search_solution(hunt: Hunt, rng: random.Random, ruled_out: Collection[int] = (), first: int | None = None) -> str:
    """A whole response without slips. Boxes are given by place. Tries the box `first`, else one not ruled out."""
    left = [place for place in range(len(hunt.boxes)) if place not in ruled_out]
    place = rng.choice(left) if first is None else first
    found = hunt.answer in hunt.boxes[place]
    trials = []
    for start in hunt.boxes[place]:
        made = generate(start, hunt.constant, hunt.steps)
        trials.append(f" {start} {' '.join(made)} {'yes' if made[-1] == hunt.ending else 'no'}")
        if made[-1] == hunt.ending:
            break
    others = [each for other in left if other != place for each in hunt.boxes[other]]
    conclusion = search_conclusion(place, found, hunt.answer if found else rng.choice(others))
    return response(f"{box_of(hunt, place)}:{';'.join(trials)}", conclusion)


def box_of(hunt: Hunt, place: int) -> str:
    return f" {LABELS[place]} {' '.join(map(str, hunt.boxes[place]))}"


def search_conclusion(place: int, found: bool, answer: int) -> str:
    """The conclusion about the tried box; the answer is a guess if it was not found there."""
    return f"{'yes' if found else 'no'}: {LABELS[place]}. \\boxed{{{answer}}}"


def _digit(number: int, place: int) -> int:
    return int(str(number)[::-1][place : place + 1] or 0)


def _marked(number: int) -> str:
    text = str(number)
    return "".join(ascii_lowercase[len(text) - 1 - index] + digit for index, digit in enumerate(text))
