"""The names of samples: everything that determines a sample's distribution and its draw."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

from pacore_lab.types import SamplingParams

POOL_REPEAT = -1
"""The `repeat` of a trajectory that belongs to a problem's shared first-round pool."""


def digest(value: Any) -> str:
    """32 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


@lru_cache(maxsize=64)
def canonical(params: SamplingParams, schema: str | None = None) -> str:
    """The sampling parameters as names hold them. Newer ones are left out at their defaults: old names stay valid."""
    values = asdict(params) | {"top_logprobs": params.top_logprobs or None, "schema": schema}
    return json.dumps({k: v for k, v in values.items() if v or k not in ("top_logprobs", "schema")}, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class SampleName:
    """Identifies a sample: the same name is the same draw, in every strategy and every run."""

    fingerprint: str
    prompt: str  # digest of the conversation
    params: str  # `canonical`
    seed: int
    problem: str
    repeat: int
    index: int

    @cached_property
    def id(self) -> str:
        return digest([self.fingerprint, *self._draw])

    @cached_property
    def engine_seed(self) -> int:
        """A 63-bit seed; it leaves out the fingerprint, so that engines can be compared on the same seeds."""
        return int(digest(self._draw), 16) & (2**63 - 1)

    @property
    def _draw(self) -> tuple[str | int, ...]:
        return (self.prompt, self.params, self.seed, self.problem, self.repeat, self.index)


@lru_cache(maxsize=1 << 16)  # policies replayed from one store keep asking for the same names
def named(fingerprint: str, prompt: str, params: str, seed: int, problem: str, repeat: int, index: int) -> SampleName:
    return SampleName(
        fingerprint=fingerprint, prompt=prompt, params=params, seed=seed, problem=problem, repeat=repeat, index=index
    )
