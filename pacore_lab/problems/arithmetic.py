"""Synthetic integer arithmetic, after appendix C of the PaCoRe report (arXiv 2601.05593).

The report draws A and B as uniform integers in [10^11, 10^13], combines them with one of +, -, * or a modular
exponentiation modulo a fixed large prime, and puts the expression into a small set of hand-written templates; answers
are integers. It names neither the prime nor the templates, so the ones here are ours. The defaults give a smaller
problem set: the sums of 3 to 5 digits that the tiny models have learned.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pacore_lab.types import Problem

Operation = Literal["add", "sub", "mul", "modexp"]
Split = Literal["train", "test"]

SYMBOLS: dict[str, str] = {"add": "{a} + {b}", "sub": "{a} - {b}", "mul": "{a} * {b}", "modexp": "{a}^{b} mod {m}"}
TEMPLATES = (
    "What is {expression}? Put the final answer in \\boxed{{}}.",
    "Compute {expression}. Give the final answer in \\boxed{{}}.",
    "Calculate the value of {expression}. Put the final answer in \\boxed{{}}.",
    "Find {expression} and give the final answer in \\boxed{{}}.",
)
# One problem in eight belongs to "test": enough for any test set, while "train" keeps most of a small digit range.
TEST_SHARE = 8


class Question(NamedTuple):
    """One drawn problem before it becomes a `Problem`; `text` is the user's turn."""

    operation: str
    a: int
    b: int
    text: str


def split_of(operation: str, a: int, b: int) -> Split:
    """The permanent split of (operation, A, B). A + B and B + A share one, and so do A * B and B * A."""
    if operation in ("add", "mul"):
        a, b = sorted((a, b))
    digest = hashlib.sha256(f"{operation} {a} {b}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % TEST_SHARE == 0 else "train"


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Arithmetic problems drawn from a seed; `load` gives `n` distinct ones.

    operations: each is drawn uniformly; repeat one to weight it.
    operands: inclusive range of A, and of B unless `factors` replaces it.
    factors: inclusive range of B in "mul"; None uses `operands`, as the report does.
    modulus: the prime of "modexp".
    draw: "value" draws uniform integers, as the report does; "digits" draws the number of digits uniformly first, so
        that short operands are as frequent as long ones.
    templates: each holds {expression}; a literal brace is doubled, as in `str.format`.
    split: "train" and "test" never share an (operation, A, B), whatever the other arguments.
    A larger `n` only appends: the smaller set keeps its problems and ids. Raises ValueError for arguments out of range.
    """

    n: int = 100
    operations: tuple[Operation, ...] = ("add",)
    operands: tuple[int, int] = (100, 99999)
    factors: tuple[int, int] | None = None
    modulus: int = 2**61 - 1
    draw: Literal["value", "digits"] = "digits"
    templates: tuple[str, ...] = TEMPLATES
    seed: int = 0
    split: Split = "test"

    def __post_init__(self) -> None:
        # YAML gives lists; a frozen value should be hashable.
        for name in ("operations", "operands", "factors", "templates"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        if self.n < 1:
            raise ValueError(f"n is {self.n}; ask for at least one problem")
        unknown = sorted(set(self.operations) - set(SYMBOLS))
        if unknown or not self.operations:
            raise ValueError(f"operations {unknown or '()'}: name one or more of {', '.join(SYMBOLS)}")
        for name, bounds in (("operands", self.operands), ("factors", self.factors)):
            if bounds is not None and (len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1]):
                raise ValueError(f"{name} is {bounds}; give [low, high] with 0 <= low <= high")
        if self.modulus < 2:
            raise ValueError(f"modulus is {self.modulus}; give a prime")
        if self.draw not in ("value", "digits"):
            raise ValueError(f"draw is {self.draw!r}; use 'value' or 'digits'")
        if self.split not in ("train", "test"):
            raise ValueError(f"split is {self.split!r}; use 'train' or 'test'")
        if not self.templates:
            raise ValueError("templates is empty; give at least one text that holds {expression}")
        for template in self.templates:
            try:
                holds_it = "1 + 1" in template.format(expression="1 + 1")
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(
                    f"template {template!r} does not format ({error!r}); double its literal braces"
                ) from error
            if not holds_it:
                raise ValueError(f"template {template!r} lacks {{expression}}")

    def load(self) -> list[Problem]:
        """`n` problems; the answer is the integer in decimal. Raises ValueError if the ranges hold too few."""
        return [self._problem(question) for question in self.questions()]

    def questions(self) -> Iterator[Question]:
        """The same draws before they become problems, for building a training set."""
        rng = random.Random(f"arithmetic {self.seed}")
        seen: set[tuple[str, int, int]] = set()
        misses = 0
        while len(seen) < self.n:
            operation = rng.choice(self.operations)
            a = self._integer(rng, self.operands)
            b = self._integer(rng, self.factors if operation == "mul" and self.factors else self.operands)
            template = rng.choice(self.templates)
            if (operation, a, b) in seen or split_of(operation, a, b) != self.split:
                misses += 1
                if misses > 1000 + 100 * self.n:
                    raise ValueError(
                        f"only {len(seen)} of {self.n} distinct {self.split} problems found; widen operands or lower n"
                    )
                continue
            seen.add((operation, a, b))
            expression = SYMBOLS[operation].format(a=a, b=b, m=self.modulus)
            yield Question(operation, a, b, template.format(expression=expression))

    def answer(self, operation: str, a: int, b: int) -> int:
        """The value of one expression, e.g. `answer("sub", 2, 5) == -3`."""
        match operation:
            case "add":
                return a + b
            case "sub":
                return a - b
            case "mul":
                return a * b
            case _:
                return pow(a, b, self.modulus)

    def _problem(self, question: Question) -> Problem:
        operation, a, b, text = question
        # The id is made from the text, so it survives a change of seed, n, ranges or the order of templates.
        name = f"{operation}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        return Problem(id=name, messages=({"role": "user", "content": text},), answer=str(self.answer(operation, a, b)))

    def _integer(self, rng: random.Random, bounds: tuple[int, int]) -> int:
        low, high = bounds
        if self.draw == "digits":
            digits = rng.randint(len(str(low)), len(str(high)))
            low, high = max(low, 10 ** (digits - 1) if digits > 1 else 0), min(high, 10**digits - 1)
        return rng.randint(low, high)
