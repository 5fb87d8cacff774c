"""Everything the lab raises on purpose.

LabError                 a message for the user, one line: what, where, how to mend it
├── ConfigError          a setting (its key is named)
│   └── Unsupported      an option this backend cannot honour, refused before the first token
├── DataError            a problem file (file:line is named)
├── BudgetSpent          the study's budget of tokens: what is done is kept, the rest waits for more
├── StoreError           the trajectory store cannot be opened or written
└── BackendError         the engine or server
    ├── TransientError   this request may succeed later: retried within a budget
    ├── RequestError     this request never will (too long a prompt, a 400): recorded with its trajectory
    │   └── NeverSampled the bank that is replayed does not hold it: counted, not stored
    └── EngineDead       no request will: the run stops, what was stored stays
"""

from __future__ import annotations


def require_count(key: str, value: object, least: int = 1) -> None:
    """Raises ValueError unless `value` is a whole number of `least` or more; `key` is its config key."""
    if type(value) is not int or value < least:
        raise ValueError(f"{key} is {value!r}; give a whole number of {least} or more")


def require_share(key: str, value: float) -> None:
    """Raises ValueError unless `value` lies in (0, 1]; `key` is its config key."""
    if not 0 < value <= 1:
        raise ValueError(f"{key} is {value}; give a number above 0 and at most 1")


class LabError(Exception):
    """Shown to the user as one line, without a traceback."""


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
    """`retry_after`: seconds the server asked to wait, if it did."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestError(BackendError):
    pass


class NeverSampled(RequestError):
    pass


class EngineDead(BackendError):
    pass
