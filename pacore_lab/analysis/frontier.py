"""Accuracy against compute: curves over a family of methods, the cost of reaching an accuracy, Pareto fronts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pacore_lab.analysis.intervals import accuracy_interval
from pacore_lab.analysis.methods import Floats, Method, row_means

Cost: TypeAlias = Literal["ttc", "critical_path", "seconds"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """Methods as points, in ascending order of mean cost per episode, over the problems that all methods have graded.

    cost, accuracy, low, high: [points]; each interval is 95 % for its own point. band_low, band_high: [points], a 95 %
    band for the whole curve. costs, accuracies: [draws, points] of the whole-curve bootstrap. Each draw uses the same
    resampled problems at every point, so the points of a draw belong together.
    """

    names: tuple[str, ...]
    problems: int
    cost: Floats
    accuracy: Floats
    low: Floats
    high: Floats
    band_low: Floats
    band_high: Floats
    costs: Floats
    accuracies: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """The cost at which a curve reaches an accuracy, None for never, with a 95 % bootstrap interval.

    low is None if the accuracy is reached in fewer than 2.5 % of the draws, high if more than 2.5 % do not reach it.
    share: of draws that reach it. A curve that begins above the accuracy reaches it at its first point, which is then
    an upper bound (`at_most`).
    """

    cost: float | None
    low: float | None
    high: float | None
    share: float
    at_most: bool


def curve(methods: Sequence[Method], cost: Cost = "ttc", *, draws: int = 1_000, seed: int = 0) -> Curve:
    """One curve of a family of methods (widths, schedules, ks). Raises ValueError if they have no problem in common.

    A problem for which some method has no grade, or no cost, is left out for all of them.
    """
    if not methods:
        raise ValueError("a curve needs at least one method")
    everywhere = set.intersection(*(set(method.problems) for method in methods))
    names = [problem for problem in methods[0].problems if problem in everywhere]
    scores, spent = (np.empty((len(methods), len(names))) for _ in range(2))
    for point, method in enumerate(methods):
        place = {problem: row for row, problem in enumerate(method.problems)}
        rows = [place[name] for name in names]
        scores[point] = row_means(method.scores[rows])
        spent[point] = row_means(getattr(method, cost)[rows])
    known = (np.isfinite(scores) & np.isfinite(spent)).all(axis=0)
    if not known.any():
        who = ", ".join(method.name for method in methods)
        raise ValueError(f"{who}: there is no problem that all of them have a grade and {cost} for")
    scores, spent = scores[:, known], spent[:, known]
    order = np.argsort(spent.mean(axis=1), kind="stable")
    scores, spent = scores[order], spent[order]
    n = scores.shape[1]
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws) / n
    costs, accuracies = times @ spent.T, times @ scores.T
    accuracy = scores.mean(axis=1)
    found = [accuracy_interval(scores[i].tolist(), methods[point].repeats) for i, point in enumerate(order)]
    low, high = np.array(found).T
    # Each draw's largest excursion, in half-widths of the single points; its 95 % quantile covers the whole curve.
    off = accuracies - accuracy
    widths = np.where(off > 0, high - accuracy, accuracy - low)
    excursion = np.divide(np.abs(off), widths, out=np.zeros_like(off), where=widths > 0).max(axis=1)
    stretch = max(1.0, float(np.quantile(excursion, 0.95)))
    return Curve(
        names=tuple(methods[point].name for point in order),
        problems=n,
        cost=spent.mean(axis=1),
        accuracy=accuracy,
        low=low,
        high=high,
        band_low=np.maximum(0.0, accuracy - stretch * (accuracy - low)),
        band_high=np.minimum(1.0, accuracy + stretch * (high - accuracy)),
        costs=costs,
        accuracies=accuracies,
    )


def cost_to_reach(found: Curve, accuracy: float) -> Reached:
    """Where a curve first reaches an accuracy in [0, 1]: linear between points, in the logarithm of the cost."""
    cost = float(_crossing(found.cost[None], found.accuracy[None], accuracy)[0])
    draws = _crossing(found.costs, found.accuracies, accuracy)
    low, high = (float(x) for x in np.quantile(draws, (0.025, 0.975), method="inverted_cdf"))
    return Reached(
        cost=_if_finite(cost),
        low=_if_finite(low),
        high=_if_finite(high),
        share=float(np.isfinite(draws).mean()),
        at_most=bool(found.accuracy[0] >= accuracy),
    )


def pareto(cost: npt.ArrayLike, accuracy: npt.ArrayLike) -> list[int]:
    """Indices of the points that no other point beats (at most the cost, at least the accuracy, better in one of them).

    In ascending order of cost; the first of equal points. Points with a nan are never on the front.
    """
    costs, accuracies = np.asarray(cost, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    front: list[int] = []
    best = -math.inf
    for place in np.lexsort((-accuracies, costs)):  # stable: equal points keep their order
        if np.isfinite(costs[place]) and accuracies[place] > best:
            best = float(accuracies[place])
            front.append(int(place))
    return front


def _crossing(costs: Floats, accuracies: Floats, target: float) -> Floats:
    """[draws]: the cost at the first crossing of each curve [draws, points], inf if there is none."""
    order = np.argsort(costs, axis=1, kind="stable")
    costs, accuracies = (np.take_along_axis(table, order, axis=1) for table in (costs, accuracies))
    above = accuracies >= target
    after = above.argmax(axis=1)  # the first point at or above
    before = np.maximum(after - 1, 0)
    each = np.arange(len(costs))
    low, high = accuracies[each, before], accuracies[each, after]
    part = np.divide(target - low, high - low, out=np.ones(len(costs)), where=(after > 0) & (high > low))
    start, stop = (np.log(np.maximum(costs[each, places], 1e-300)) for places in (before, after))
    return np.where(above.any(axis=1), np.exp(start + part * (stop - start)), np.inf)


def _if_finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
