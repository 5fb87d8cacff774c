"""A trainer's log, one JSON object per step, and its rates over windows of steps."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacore_lab.analysis.ratios import pooled_interval
from pacore_lab.errors import ConfigError, DataError

WINDOW = 100
"""Steps over which rates are pooled, as in the paper's figure."""
COUNTED = ("responses", "graded", "all_wrong", "emergent", "cross_checks", "concluding")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A line of a log. reward, length (tokens): means over the responses, None if not logged. counts: `Counts`."""

    step: int
    reward: float | None
    length: float | None
    counts: Mapping[str, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Steps first to last. reward, length: means over its steps. Counts are sums, None if none were logged.

    low, high: 95 % interval of the rate emergent / all_wrong in [0, 1], None if no instance was all wrong. Responses to
    one instance are not independent and the log does not tell instances apart, so steps are the clusters.
    """

    first: int
    last: int
    reward: float | None
    length: float | None
    all_wrong: int | None
    emergent: int | None
    low: float | None
    high: float | None

    @property
    def rate(self) -> float | None:
        return self.emergent / self.all_wrong if self.all_wrong and self.emergent is not None else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Accuracy of a checkpoint with its 95 % interval, in percent."""

    step: int
    mean: float
    low: float
    high: float


def read_log(path: Path) -> list[Step]:
    """The steps of a log. Raises DataError (file:line), and ConfigError if there is no such file.

    A repeated step was trained again from a checkpoint: earlier lines from that step on are dropped. A last line
    without a newline is still being written.
    """
    steps: list[Step] = []
    text = _text(path)
    *lines, cut = text.split("\n")
    for number, line in enumerate([*lines, cut], start=1):
        if not line.strip():
            continue
        try:
            step = _step(json.loads(line))
        except ValueError as error:
            if number > len(lines) and isinstance(error, json.JSONDecodeError):
                continue
            reason = "not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(f"{path}:{number}: {reason}") from None
        while steps and steps[-1].step >= step.step:
            steps.pop()
        steps.append(step)
    if not steps:
        raise DataError(f"{path} holds no steps yet; let the training take one")
    return steps


def windows(steps: Sequence[Step], size: int = WINDOW) -> list[Window]:
    """Windows of `size` steps, from the log's first step on; windows without a logged step are left out."""
    groups: dict[int, list[Step]] = {}
    for step in steps:
        groups.setdefault((step.step - steps[0].step) // size, []).append(step)
    found = []
    for group in groups.values():
        counts = [step.counts for step in group if step.counts is not None]
        wrong, emergent = ([each[key] for each in counts] for key in ("all_wrong", "emergent"))
        low, high = pooled_interval(emergent, wrong) if sum(wrong) else (None, None)
        found.append(
            Window(
                first=group[0].step,
                last=group[-1].step,
                reward=_mean([step.reward for step in group]),
                length=_mean([step.length for step in group]),
                all_wrong=int(sum(wrong)) if counts else None,
                emergent=int(sum(emergent)) if counts else None,
                low=low,
                high=high,
            )
        )
    return found


def read_accuracy(path: Path) -> dict[str, list[Measured]]:
    """Measurements by name, steps ascending. Raises DataError naming the line or entry."""
    try:
        tables = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(tables, dict) or not all(isinstance(entries, list) for entries in tables.values()):
        raise DataError(f'{path}:1: give {{"name": [{{"step": 0, "mean": 31, "low": 28, "high": 34}}]}}')
    found = {}
    for name, entries in tables.items():
        for number, entry in enumerate(entries, start=1):
            try:
                _measured(entry)
            except ValueError as error:
                raise DataError(f"{path}: {name!r}, entry {number}: {error}") from None
        found[name] = sorted(map(_measured, entries), key=lambda each: each.step)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({getattr(error, 'strerror', 'not UTF-8')}); name a file") from None


def _step(value: Any) -> Step:
    if not isinstance(value, dict):
        raise ValueError("a step is a JSON object")
    counts = value.get("counts")
    if counts is not None:
        if not isinstance(counts, dict):
            raise ValueError("counts is not a JSON object")
        counts = {key: _number(counts, key, least=0) or 0 for key in COUNTED}
        if not counts["emergent"] <= counts["all_wrong"] <= counts["graded"] <= counts["responses"]:
            raise ValueError("counts must grow in the order emergent, all_wrong, graded, responses")
    numbers = {key: _number(value, key) for key in ("reward", "length")}
    return Step(step=_whole(value), **numbers, counts=counts)


def _measured(value: Any) -> Measured:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    mean, low, high = (_number(value, key) for key in ("mean", "low", "high"))
    if mean is None or low is None or high is None or not 0 <= low <= mean <= high <= 100:
        raise ValueError("give low, mean and high as percent, in ascending order")
    return Measured(step=_whole(value), mean=mean, low=low, high=high)


def _whole(value: Mapping[str, Any]) -> int:
    step = value.get("step")
    if type(step) is not int or step < 0:
        raise ValueError(f"step is {step!r}; give a whole number of 0 or more")
    return step


def _number(value: Mapping[str, Any], key: str, least: float = -math.inf) -> float | None:
    found = value.get(key)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found) or found < least:
        raise ValueError(f"{key} is {found!r}; give a number{'' if least < 0 else f' of {least:g} or more'}")
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
