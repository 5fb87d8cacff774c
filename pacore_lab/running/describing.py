"""Parts as a configuration would write them, so that a run built by hand has settings like any other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

DEEPEST = 16
"""Levels of objects within objects that a description tells."""


def described(part: Any) -> Any:
    """`_target_` and every field of a part, as JSON values.

    Parts that differ are described differently: a function that cannot be imported by its name by its code and what it
    encloses, any other object by its attributes, or else by its `repr`. A description that holds a memory address is
    of one process only: such a run cannot be resumed, and says so.
    """
    return _described(part, ())


def target(part: object) -> str:
    """The `_target_` of an object: its class."""
    return _path(type(part))


def _described(part: Any, within: tuple[int, ...]) -> Any:
    if part is None or isinstance(part, (str, bool, int)):
        return part
    if isinstance(part, float):
        return part if math.isfinite(part) else repr(part)
    if isinstance(part, Path):
        return str(part)
    if id(part) in within or len(within) > DEEPEST:
        return "..."  # it holds itself, or too much to be told
    inside = (*within, id(part))
    if isinstance(part, Mapping):
        return {str(key): _described(value, inside) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [_described(value, inside) for value in part]
    if isinstance(part, (set, frozenset)):
        return sorted((_described(value, inside) for value in part), key=repr)
    if isinstance(part, (type, FunctionType)):
        return _named(part, inside)
    if is_dataclass(part):
        values = {item.name: getattr(part, item.name) for item in fields(part) if item.init}
    elif type(part).__module__ == "numpy":
        values = {"dtype": str(part.dtype), "values": part.tolist()}
    else:
        values = _attributes(part) or {"repr": repr(part)}
    return {"_target_": target(part)} | {key: _described(value, inside) for key, value in values.items()}


def _attributes(part: object) -> dict[str, Any]:
    try:
        return vars(part)
    except TypeError:
        return {}


def _named(part: type | FunctionType, within: tuple[int, ...]) -> dict[str, Any]:
    """A class or function in the place of an object."""
    found: dict[str, Any] = {"_target_": "hydra.utils.get_object", "path": _path(part)}
    if isinstance(part, FunctionType) and ("<" in part.__qualname__ or part.__module__ == "__main__"):
        enclosed = [cell.cell_contents for cell in part.__closure__ or ()]
        found["code"] = hashlib.sha256(_code(part.__code__).encode()).hexdigest()[:16]
        found["enclosed"] = _described([part.__defaults__, part.__kwdefaults__, enclosed], within)
    return found


def _code(code: CodeType) -> str:
    constants = [_code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return repr((code.co_code, code.co_names, constants))


def _path(named: type | FunctionType) -> str:
    return f"{named.__module__}.{named.__qualname__}"
