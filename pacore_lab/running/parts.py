"""What a run is made of: a strategy, backends and their models, problems, and a grader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from pacore_lab.errors import ConfigError
from pacore_lab.interfaces import Backend, Grader, ProblemSet, Strategy
from pacore_lab.types import Model


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
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; it must lie between 0 and 2**63 - 1")
        settings = {**self._described(), **self.settings}
        names = {"name": self.name or _class(self.strategy), "problem_set": self.problem_set or _class(self.problems)}
        for key, value in {**names, "settings": settings}.items():
            object.__setattr__(self, key, value)

    def _described(self) -> dict[str, Any]:
        """The settings of a run built by hand, in the form of a composed run's."""
        parts = {key: described(getattr(self, key)) for key in ("strategy", "model", "problems", "grader")}
        counts = {key: getattr(self, key) for key in ("seed", "repeats", "limit", "pool")}
        found = {**parts, "backend": described(self.backend)["_target_"], **counts}
        if self.roles:
            found["roles"] = {
                name: {"model": described(role.model), "backend": described(role.backend)["_target_"]}
                for name, role in self.roles.items()
            }
        return found


def described(part: Any) -> Any:
    """A part as a configuration would write it: `_target_` and every field, as JSON values."""
    if part is None or isinstance(part, (str, int, float, bool)):
        return part
    if isinstance(part, Mapping):
        return {str(key): described(value) for key, value in part.items()}
    if isinstance(part, Sequence):
        return [described(value) for value in part]
    if isinstance(part, Path):
        return str(part)
    if is_dataclass(part) and not isinstance(part, type):
        values = {item.name: described(getattr(part, item.name)) for item in fields(part) if item.init}
        return {"_target_": _path(type(part)), **values}
    if hasattr(part, "__qualname__"):  # a function or class in place of an object
        return {"_target_": "hydra.utils.get_object", "path": _path(part)}
    return {"_target_": _path(type(part))}


def _path(named: Any) -> str:
    return f"{named.__module__}.{named.__qualname__}"


def _class(part: object) -> str:
    return type(part).__name__
