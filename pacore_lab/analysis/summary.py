"""A run's table: accuracy, compute, paired differences. A number without grades is None, never 0."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pacore_lab.analysis.intervals import accuracy_interval, standard_errors, stratified_interval
from pacore_lab.analysis.methods import Floats, Line, Method, methods_of
from pacore_lab.analysis.paired import Difference, paired, pairs

BIN = 100
"""Answers per bin of the calibration error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One group of problems (axis, subject, difficulty). accuracy, low, high: as in `Row`."""

    name: str
    problems: int
    graded: int
    accuracy: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One method of a run.

    episodes = graded + ungraded + failed. accuracy: mean over problems of the mean over their graded repeats, in
    [0, 1], with its 95 % interval [low, high]; None if nothing was graded. ttc, critical_path: tokens per episode that
    did not fail. seconds: wall-clock per such episode, None for the baselines, which use the strategy's trajectories.
    k: trajectories of a baseline, if that is a single number.
    error: standard error over problems. error_within: of the sampling alone, on these problems (`StandardErrors`).
    groups: by name, if the problems have groups. group_mean, group_low, group_high: their unweighted mean accuracy, as
    MultiChallenge defines its score over four axes (arXiv 2501.17399); None unless every group has a grade.
    judge_tokens: per episode that did not fail, not part of ttc. calibration_error: see `calibration_error`.
    """

    method: str
    problems: int
    episodes: int
    graded: int
    ungraded: int
    failed: int
    accuracy: float | None
    low: float | None
    high: float | None
    ttc: float | None
    critical_path: float | None
    seconds: float | None = None
    k: int | None = None
    versus: tuple[Difference, ...] = ()
    error: float | None = None
    error_within: float | None = None
    groups: tuple[Group, ...] = ()
    group_mean: float | None = None
    group_low: float | None = None
    group_high: float | None = None
    judge_tokens: float | None = None
    calibration_error: float | None = None


def summarise(lines: Iterable[Line], strategy: str) -> list[Row]:
    """The single-sample and majority-vote baselines, then the strategy with its difference to each of them.

    Streams, keeping only numbers. A baseline that matches the strategy in every episode (same score, same tokens) is
    left out: it is the strategy.
    """
    *baselines, ours = methods_of(lines, strategy)
    comparable = [baseline for baseline in baselines if np.isfinite(pairs(ours, baseline).leads).any()]
    versus = tuple(paired(ours, baseline) for baseline in comparable)
    return [*map(row_of, baselines), row_of(ours, versus)]


def row_of(method: Method, versus: tuple[Difference, ...] = ()) -> Row:
    """One method's row; `versus` is passed on."""
    finished = int(np.isfinite(method.ttc).sum())
    failed = int(method.failed.sum())
    accuracy, low, high = _accuracy(method.problem_means, method.repeats)
    errors = standard_errors(method)
    groups = _groups(method)
    group_mean, group_low, group_high = _group_mean(method, groups)
    return Row(
        method=method.name,
        problems=int((np.isfinite(method.ttc) | (method.failed > 0)).any(axis=1).sum()),
        episodes=finished + failed,
        graded=method.graded,
        ungraded=finished - method.graded,
        failed=failed,
        accuracy=accuracy,
        low=low,
        high=high,
        ttc=method.mean("ttc"),
        critical_path=method.mean("critical_path"),
        seconds=method.mean("seconds"),
        k=method.k,
        versus=versus,
        error=errors.total,
        error_within=errors.within,
        groups=groups,
        group_mean=group_mean,
        group_low=group_low,
        group_high=group_high,
        judge_tokens=method.mean("judge_tokens"),
        calibration_error=calibration_error(method.confidence, method.scores),
    )


def calibration_error(confidence: Floats, scores: Floats) -> float | None:
    """RMS calibration error in [0, 1] over the answers that have both numbers, None if none has.

    The arrays have the same shape. Answers are sorted by confidence and cut into bins of equal count, about 100 each
    (one bin for fewer than 200). The squared gaps between mean confidence and accuracy are averaged over the bins,
    weighted by size (Hendrycks et al., arXiv 1812.04606, section 4.3, with adaptive bins; reported by Humanity's Last
    Exam, 2501.14249). Equal confidences keep the order of the problems.
    """
    both = np.isfinite(confidence) & np.isfinite(scores)
    stated, right = confidence[both], scores[both]
    if not len(stated):
        return None
    bins = np.array_split(np.argsort(stated, kind="stable"), max(1, len(stated) // BIN))
    return math.sqrt(math.fsum(len(b) * (stated[b].mean() - right[b].mean()) ** 2 for b in bins) / len(stated))


def _accuracy(problem_means: Floats, repeats: float) -> tuple[float | None, float | None, float | None]:
    means = problem_means[np.isfinite(problem_means)].tolist()
    if not means:
        return None, None, None
    return math.fsum(means) / len(means), *accuracy_interval(means, repeats)


def _groups(method: Method) -> tuple[Group, ...]:
    found = []
    for name in sorted({name for name in method.groups if name is not None}):
        rows = np.array([group == name for group in method.groups])
        accuracy, low, high = _accuracy(method.problem_means[rows], method.repeats)
        graded = int(np.isfinite(method.scores[rows]).sum())
        found.append(Group(name=name, problems=int(rows.sum()), graded=graded, accuracy=accuracy, low=low, high=high))
    return tuple(found)


def _group_mean(method: Method, groups: tuple[Group, ...]) -> tuple[float | None, float | None, float | None]:
    accuracies = [group.accuracy for group in groups if group.accuracy is not None]
    if not groups or len(accuracies) < len(groups):
        return None, None, None
    means = method.problem_means
    strata = [
        [float(x) for x, name in zip(means, method.groups, strict=True) if name == group.name and not math.isnan(x)]
        for group in groups
    ]
    return math.fsum(accuracies) / len(accuracies), *stratified_interval(strata, method.repeats)
