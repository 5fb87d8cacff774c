"""What a run is made of: a strategy, backends and their models, problems, and a grader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pacore_lab.errors import ConfigError
from pacore_lab.interfaces import Backend, Grader, ProblemSet, Strategy
from pacore_lab.running.describing import described, target
from pacore_lab.types import Model

KINDS = {
    "strategy": ("Strategy", "solve"),
    "backend": ("Backend", "complete"),
    "problems": ("ProblemSet", "load"),
    "grader": ("Grader", "grade"),
}
"""The Protocol of each part of a run, and the method by which one is known."""


def require_part_of_a_run(key: str, part: object) -> None:
    """Raises ConfigError for a part that is not an object of its kind. key: a field of `Run`."""
    if isinstance(part, type):
        raise ConfigError(f"{key} is the class {part.__name__}; give an object, {part.__name__}(...)")
    if key == "model" and not isinstance(part, Model):
        raise ConfigError(f"model is {part!r:.80}; give pacore_lab.Model(name=...)")
    if key in KINDS:
        protocol, method = KINDS[key]
        if not callable(getattr(part, method, None)):
            raise ConfigError(f"{key} is {part!r:.80}; give a pacore_lab.{protocol}, which has a method {method}")


def model_of(backend: object) -> Model | None:
    """The model that a backend was built with, if it keeps one in a field `model`."""
    model = getattr(backend, "model", None)
    return model if isinstance(model, Model) else None


def require_seed(seed: int) -> None:
    """Raises ConfigError unless the seed fits the store and the engines."""
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed is {seed}; it must lie between 0 and 2**63 - 1")


@dataclass(frozen=True, kw_only=True)
class Role:
    """The model and backend of one role that a strategy asks by name."""

    backend: Backend
    model: Model


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a run needs; the defaults are those of `python run.py`.

    out: the run folder. store: the trajectory store, one file that runs share.
    name: the strategy's name in tables. problem_set: the problem set's name in the report.
    settings: everything the results depend on; a folder holds one set. Missing keys are filled in from the parts.
    Raises ConfigError for numbers out of range.
    """

    strategy: Strategy
    backend: Backend
    model: Model
    problems: ProblemSet
    grader: Grader
    out: Path
    store: Path = Path("outputs/store.sqlite")
    name: str = ""
    problem_set: str = ""
    seed: int = 0
    repeats: int = 1
    limit: int | None = None
    concurrency: int = 256
    pool: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)
    budget: int | None = None
    finish_aborted: bool = False

    def __post_init__(self) -> None:
        for key in ("repeats", "limit", "concurrency", "pool", "budget"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"{key} is {value}; give a whole number of 1 or more")
        require_seed(self.seed)
        for key in ("strategy", "backend", "model", "problems", "grader"):
            require_part_of_a_run(key, getattr(self, key))
        settings = {**self._described(), **self.settings}
        object.__setattr__(self, "settings", settings)
        object.__setattr__(self, "name", self.name or type(self.strategy).__name__)
        object.__setattr__(self, "problem_set", self.problem_set or type(self.problems).__name__)

    def _described(self) -> dict[str, Any]:
        """The settings of a run built by hand, in the form of a composed run's."""
        parts = {key: described(getattr(self, key)) for key in ("strategy", "model", "problems", "grader")}
        counts = {key: getattr(self, key) for key in ("seed", "repeats", "limit", "pool")}
        found = {**parts, "backend": target(self.backend), **counts}
        if self.roles:
            found["roles"] = {
                name: {"model": described(role.model), "backend": target(role.backend)}
                for name, role in self.roles.items()
            }
        return found
