"""A model without weights whose mistakes are known: runs with graded accuracies, in no time and without an engine."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import zip_longest

from pacore_lab.errors import RequestError
from pacore_lab.interfaces import Capabilities, OnChunk, Request
from pacore_lab.types import Completion, Model, text_of

_SUM = re.compile(r"([0-9]+) \+ ([0-9]+)")


@dataclass(frozen=True, kw_only=True)
class Adder:
    """Works out the first sum "A + B" of the last turn column by column. A word is a token.

    slip: the probability that a carry is forgotten, times the temperature (at most 1): a slip in the sense of VanLehn
    (1982, LRDC-TR-ONR-8), an error that comes and goes, where a bug stays.
    `complete` raises RequestError where there is no sum.
    """

    model: Model
    slip: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.slip <= 1:
            raise ValueError(f"backend.slip is {self.slip}; give a probability, 0 to 1")
        if self.model.top_p < 1:
            raise ValueError(f"model.top_p is {self.model.top_p}, which backend=adder cannot honour; set it to 1")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(seeds="request")

    @property
    def fingerprint(self) -> str:
        return f"adder:1:{self.slip}"

    async def start(self) -> None:
        pass

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        text = text_of(request.prompt[-1]["content"])
        asked = _SUM.search(text)
        if asked is None:
            raise RequestError('backend=adder found no sum "A + B" in the last turn; use problems=arithmetic')
        slip = min(1.0, self.slip * request.params.temperature)
        words = _worked(asked[1], asked[2], slip, random.Random(request.seed))
        said = words[: request.params.max_tokens]
        return Completion(
            content=" ".join(said),
            finish_reason="stop" if said == words else "length",
            prompt_tokens=len(text.split()),
            generated_tokens=len(said),
            max_tokens=request.params.max_tokens,
        )

    async def close(self) -> None:
        pass


def _worked(a: str, b: str, slip: float, draw: random.Random) -> list[str]:
    """The words of an answer: columns from the right, then the sum."""
    carry, digits, columns = 0, "", []
    for x, y in zip_longest(reversed(a), reversed(b), fillvalue="0"):
        column = int(x) + int(y) + carry
        columns.append(f"{x}+{y}+{carry}={column}")
        digits = f"{column % 10}{digits}"
        carry = int(column > 9 and draw.random() >= slip)
    answer = f"{carry}{digits}".lstrip("0") or "0"
    return ["<think>", *columns, "</think>", "Adding", a, "and", b, "gives", f"\\boxed{{{answer}}}"]
