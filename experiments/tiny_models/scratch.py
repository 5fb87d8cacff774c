"""The worked solutions that the tiny models learn to write: digit by digit, least significant digit first.

    <think>
    d4c7b0a8+c5b9a6        the operands, every digit after the letter of its place (a = ones)
    a8614b0910c7513d4005   place by place: letter, two digits (in a product all of B), carry out, result
    d5c3b0a4               the result with its letters, after a minus sign where it is negative
    </think>

    The answer is \\boxed{5304}.

The letters let attention find a digit by its place instead of by counting; the rest is as short as it gets (about 12
tokens for every digit).
"""

import random
from string import ascii_lowercase as LETTERS

SIGNS = {"add": "+", "sub": "-", "mul": "*"}
CONCLUSIONS = (
    "\\boxed{{{}}}",
    "The answer is \\boxed{{{}}}.",
    "So the result is \\boxed{{{}}}.",
    "Therefore, the final answer is \\boxed{{{}}}.",
)


def solution(operation: str, a: int, b: int, rng: random.Random) -> str:
    """A whole response, right in every digit; only the wording of its conclusion is drawn."""
    thought, answer = work_out(operation, a, b)
    return f"<think>\n{thought}\n</think>\n\n{conclusion(answer, rng)}"


def conclusion(answer: int, rng: random.Random) -> str:
    """One of the short forms in which these models conclude."""
    return rng.choice(CONCLUSIONS).format(answer)


def work_out(operation: str, a: int, b: int) -> tuple[str, int]:
    """The lines between the think marks, and the answer. "mul" takes B whole: two digits make it hard."""
    lines = [f"{_marked(a)}{SIGNS[operation]}{_marked(b)}"]
    steps, digits, carry = [], [], 0
    width = len(str(b)) if operation == "mul" else 1  # of a carry
    for place in range(len(str(a)) if operation == "mul" else max(len(str(a)), len(str(b)))):
        x = _digit(a, place)
        y = b if operation == "mul" else _digit(b, place)
        value = {"add": x + y + carry, "sub": x - y - carry, "mul": x * y + carry}[operation]
        carry, digit = (int(value < 0), value % 10) if operation == "sub" else divmod(value, 10)
        digits.append(digit)
        steps.append(f"{LETTERS[place]}{x}{y}{carry:0{width}}{digit}")
    lines.append("".join(steps))
    size = int("".join(map(str, (carry, *reversed(digits)))))
    sign = ""
    if operation == "sub" and carry:
        # A < B leaves a borrow: what was written is 10^n - |A - B|, and one more line turns it round. Comparing A with
        # B first and swapping them was tried: a model this small does not learn to look ahead that far.
        sign, size = "-", b - a
        lines.append(sign + "".join(f"{LETTERS[place]}{_digit(size, place)}" for place in range(len(digits))))
    lines.append(f"{sign}{_marked(size)}")
    return "\n".join(lines), -size if sign else size


def _digit(number: int, place: int) -> int:
    return int(str(number)[::-1][place : place + 1] or 0)


def _marked(number: int) -> str:
    text = str(number)
    return "".join(LETTERS[len(text) - 1 - index] + digit for index, digit in enumerate(text))
