"""Everything the lab raises on purpose.

LabError                 a message for the user, one line: what, where, how to mend it
├── ConfigError          a setting (its key is named)
│   └── Unsupported      an option this backend cannot honour, refused before the first token
├── DataError            a problem file (file:line is named)
├── BudgetSpent          the study's token budget: finished episodes are kept, the rest need a larger budget
├── StoreError           the trajectory store cannot be opened or written
└── BackendError         the engine or server
    ├── TransientError   this request may succeed later: retried a limited number of times
    ├── RequestError     this request can never succeed (prompt too long, a 400): stored with its trajectory
    │   └── NeverSampled the store being replayed does not hold it: counted, not stored
    └── EngineDead       no request can succeed: the run stops and keeps what it has stored
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard


def require_count(key: str, value: object, least: int = 1) -> None:
    """Raises ValueError unless `value` is a whole number of `least` or more; `key` is its config key."""
    if type(value) is not int or value < least:
        raise ValueError(f"{key} is {value!r}; give a whole number of {least} or more")


def require_number(key: str, value: object, above: float = -math.inf) -> None:
    """Raises ValueError unless `value` is a finite number above `above`; `key` is its config key."""
    if not _is_number(value) or not above < value < math.inf:
        raise ValueError(f"{key} is {value!r}; give a {'finite number' if above < 0 else f'number above {above:g}'}")


def require_share(key: str, value: object) -> None:
    """Raises ValueError unless `value` is a number in (0, 1]; `key` is its config key."""
    if not _is_number(value) or not 0 < value <= 1:
        raise ValueError(f"{key} is {value!r}; give a number above 0 and at most 1")


def require_flag(key: str, value: object) -> None:
    """Raises ValueError unless `value` is a bool, since any text would count as true; `key` is its config key."""
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}; give true or false")


def require_name(key: str, value: object) -> None:
    """Raises ValueError unless `value` is the name of a role; `key` is its config key."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is {value!r}; give a name, e.g. judge")


def require_names(key: str, value: object, least: int = 0) -> None:
    """Raises ValueError unless `value` is a list of at least `least` role names; `key` is its config key."""
    names = value if isinstance(value, (list, tuple)) else [None]
    if len(names) < least or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{key} is {value!r}; give a list of names, e.g. [explore, synthesize]")


def require_part(key: str, value: object) -> None:
    """Raises ValueError unless `value` is callable; `key` is its config key."""
    if not callable(value):
        raise ValueError(f"{key} is {value!r:.80}, which is not a part of this kind; name its class by {key}._target_=")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class LabError(Exception):
    """Shown to the user as one line, without a traceback."""


@contextmanager
def within(key: str) -> Iterator[None]:
    """Prefixes a LabError with its config key, for code that raises it without knowing the key."""
    try:
        yield
    except LabError as error:
        error.args = (f"{key}: {error}", *error.args[1:])
        raise


class ConfigError(LabError):
    pass


class Unsupported(ConfigError):
    pass


class DataError(LabError):
    pass


class StoreError(LabError):
    pass


class BudgetSpent(LabError):
    pass


class BackendError(LabError):
    pass


class TransientError(BackendError):
    """retry_after: seconds that the server asked to wait, if it did."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestError(BackendError):
    pass


class NeverSampled(RequestError):
    pass


class EngineDead(BackendError):
    pass
