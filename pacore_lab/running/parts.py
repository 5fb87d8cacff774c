"""What a run is: a strategy, what samples for it, what is asked and who grades."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pacore_lab.errors import ConfigError
from pacore_lab.interfaces import Backend, Grader, ProblemSet, Strategy
from pacore_lab.types import Model


@dataclass(frozen=True, kw_only=True)
class Role:
    """A model of its own for those whom a strategy asks by this name."""

    backend: Backend
    model: Model


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a run needs. `settings` are what its results depend on; a folder holds one set of settings."""

    name: str
    problem_set: str
    strategy: Strategy
    backend: Backend
    model: Model
    problems: ProblemSet
    grader: Grader
    seed: int
    repeats: int
    limit: int | None
    concurrency: int
    pool: int | None
    out: Path
    store: Path
    settings: Mapping[str, Any]
    roles: Mapping[str, Role] = field(default_factory=dict)
    budget: int | None = None
    finish_aborted: bool = False

    def __post_init__(self) -> None:
        for key in ("repeats", "limit", "concurrency", "pool", "budget"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"{key} is {value}; give a whole number of 1 or more")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; it must lie between 0 and 2**63 - 1")
