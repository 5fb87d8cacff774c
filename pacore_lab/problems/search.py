"""Search for the number a generator started from: each candidate has to be tried, and a trajectory has room for few.

In this family coordination can help where sharpening cannot. Candidates lie in boxes. A trajectory of the tiny models
has room to try one box, so it finds the right candidate in one case of `boxes`, however good its arithmetic. A message
says which box was tried and what was found, so a later round can check a claim or try an untried box. The guesses of
unsuccessful trajectories scatter, which makes a vote weak. The difficulty is `boxes`.

The last digit of a cube makes the rule one to one: two numbers never end alike, so every candidate is equally likely.
(It also lets a solver run the generator backwards, which the tiny models are not taught.)
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import NamedTuple

from pacore_lab.errors import require_count
from pacore_lab.problems.arithmetic import TEST_SHARE, Split
from pacore_lab.types import Problem

TEXT = (
    "A generator makes two-digit numbers: ab is followed by bc, where c is the last digit of a*a*a + b + {constant}. "
    "After {steps} steps it is at {ending}. Which of these did it start from? {candidates} "
    "Put the final answer in \\boxed{{}}."
)
LABELS = ascii_uppercase
CONSTANTS = (1, 3, 7)


class Hunt(NamedTuple):
    """One drawn problem before it becomes a `Problem`. answer: the one candidate that leads to `ending`."""

    constant: int
    steps: int
    ending: str
    boxes: tuple[tuple[int, ...], ...]
    answer: int

    @property
    def text(self) -> str:
        listed = (f"{label} {' '.join(map(str, box))}" for label, box in zip(LABELS, self.boxes, strict=False))
        return TEXT.format(constant=self.constant, steps=self.steps, ending=self.ending, candidates=" ".join(listed))


def generate(start: int, constant: int, steps: int) -> list[str]:
    """The next `steps` numbers, of two digits each, e.g. `generate(44, 0, 3) == ["48", "82", "24"]`."""
    a, b = divmod(start, 10)
    made = []
    for _ in range(steps):
        a, b = b, (a**3 + b + constant) % 10
        made.append(f"{a}{b}")
    return made


def split_of(constant: int, steps: int, boxes: Sequence[Sequence[int]]) -> Split:
    """The permanent split of a generator with these candidates, however they are boxed."""
    candidates = sorted(candidate for box in boxes for candidate in box)
    digest = hashlib.sha256(f"search {constant} {steps} {candidates}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % TEST_SHARE == 0 else "train"


@dataclass(frozen=True, kw_only=True)
class Search:
    """Searches drawn from a seed; `load` gives `n` distinct ones.

    boxes, box: the number of boxes, and of candidates in each.
    starts: inclusive range of the candidates, which have two digits each. steps: of the generator, in one trial.
    split: "train" and "test" never share a generator with its candidates, whatever the other arguments.
    A larger `n` only appends: the smaller set keeps its problems and ids. Raises ValueError for arguments out of range.
    """

    n: int = 100
    boxes: int = 8
    box: int = 3
    starts: tuple[int, int] = (33, 99)
    steps: int = 4
    seed: int = 0
    split: Split = "test"

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", tuple(self.starts))  # YAML gives lists; a frozen value should be hashable
        for key in ("n", "box", "steps"):
            require_count(key, getattr(self, key))
        require_count("boxes", self.boxes, least=2)
        if len(self.starts) != 2 or not 10 <= self.starts[0] <= self.starts[1] <= 99:
            raise ValueError(f"starts is {self.starts}; give [low, high] with 10 <= low <= high <= 99")
        room = self.starts[1] - self.starts[0] + 1
        if self.boxes > len(LABELS) or self.boxes * self.box > room:
            raise ValueError(
                f"boxes is {self.boxes}, each of {self.box}; there are only {room} numbers and {len(LABELS)} labels"
            )
        if self.split not in ("train", "test"):
            raise ValueError(f"split is {self.split!r}; use 'train' or 'test'")

    def load(self) -> list[Problem]:
        """`n` problems; the answer is the candidate in decimal. Raises ValueError if the ranges hold too few."""
        return [self._problem(hunt) for hunt in self.hunts()]

    def hunts(self) -> Iterator[Hunt]:
        """The same draws before they become problems, for building a training set."""
        rng = random.Random(f"search {self.seed}")
        seen: set[tuple[int, tuple[int, ...]]] = set()
        misses = 0
        while len(seen) < self.n:
            constant = rng.choice(CONSTANTS)
            candidates = rng.sample(range(self.starts[0], self.starts[1] + 1), self.boxes * self.box)
            answer = rng.choice(candidates)
            boxes = tuple(tuple(candidates[start : start + self.box]) for start in range(0, len(candidates), self.box))
            key = (constant, tuple(sorted(candidates)))
            if key in seen or split_of(constant, self.steps, boxes) != self.split:
                misses += 1
                if misses > 1000 + 100 * self.n:
                    raise ValueError(
                        f"only {len(seen)} of {self.n} distinct {self.split} problems found; widen starts, lower n"
                    )
                continue
            seen.add(key)
            yield Hunt(constant, self.steps, generate(answer, constant, self.steps)[-1], boxes, answer)

    def _problem(self, hunt: Hunt) -> Problem:
        # The id is made from the text, so it survives a change of seed and n.
        name = f"search-{hashlib.sha256(hunt.text.encode()).hexdigest()[:12]}"
        return Problem(id=name, messages=({"role": "user", "content": hunt.text},), answer=str(hunt.answer))
