"""How many problems and repeats it takes to see a difference, from the variances of an observed comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pacore_lab.analysis.methods import Method, row_means
from pacore_lab.analysis.paired import pairs

MOST = 10_000_000
"""The number of problems beyond which a design is hopeless."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Variance of a paired difference: between problems, and within a problem from repeat to repeat.

    The mean over P problems with R repeats each has the variance (between + within / R) / P. within is None after one
    repeat: then between includes it, and other numbers of repeats cannot be planned. problems, repeats: of the observed
    comparison; repeats as far as they are independent. With few problems, between is a poor estimate and may be 0.
    """

    between: float
    within: float | None
    problems: int
    repeats: float

    def error(self, problems: int, repeats: float) -> float:
        """Standard error of the mean difference in a design. Raises ValueError for repeats that cannot be planned."""
        if self.within is None:
            if not math.isclose(repeats, self.repeats):
                raise ValueError(f"one repeat was seen, which says nothing about {repeats}; give two repeats or more")
            return math.sqrt(self.between / problems)
        return math.sqrt((self.between + self.within / repeats) / problems)


def spread_of(method: Method, baseline: Method) -> Spread:
    """The variances of a comparison. Raises ValueError with fewer than two graded problems in common.

    Repeats that share a pool show less variance than fresh samples would. It is scaled up by the smallest factor that
    `Method.independence` allows.
    """
    common = pairs(method, baseline)
    leads = common.leads[np.isfinite(common.leads).any(axis=1)]
    if len(leads) < 2:
        raise ValueError(
            f"{method.name} and {baseline.name} have {len(leads)} graded problems in common; give 2 or more"
        )
    means, counts = row_means(leads), np.isfinite(leads).sum(axis=1)
    total = float(means.var(ddof=1))
    several = counts > 1
    actual = float(counts.mean())
    if not several.any():
        return Spread(between=total, within=None, problems=len(leads), repeats=1.0)
    squares = np.where(np.isfinite(leads), (leads - means[:, None]) ** 2, 0.0).sum(axis=1)[several]
    shared = max(0.0, (actual / common.repeats - 1) / (actual - 1))
    seen = float((squares / (counts[several] - 1)).mean())
    within = seen / max(1 - shared, 1e-9)
    between = max(0.0, total - within / common.repeats)
    return Spread(between=between, within=within, problems=len(leads), repeats=common.repeats)


def power(spread: Spread, difference: float, problems: int, repeats: float) -> float:
    """Chance that a two-sided 5 % t-test over problems detects a true difference in [-1, 1]. problems: 2 or more."""
    from scipy import stats

    error = spread.error(problems, repeats)
    if error == 0:
        return 1.0 if difference else 0.05
    limit = stats.t.ppf(0.975, problems - 1)
    shift = abs(difference) / error
    above, below = stats.nct.sf(limit, problems - 1, shift), stats.nct.cdf(-limit, problems - 1, shift)
    # In the far tail scipy's non-central t is nan, where one side holds everything and the other nothing.
    return float(np.nan_to_num(above, nan=1.0) + np.nan_to_num(below, nan=0.0))


def smallest_difference(
    spread: Spread, problems: int | None = None, repeats: float | None = None, *, wanted: float = 0.8
) -> float:
    """The true difference a design detects with a power of `wanted`; by default the observed design. In [0, inf)."""
    from scipy import optimize

    n, times = problems or spread.problems, repeats or spread.repeats
    error = spread.error(n, times)
    if error == 0:
        return 0.0
    return float(optimize.brentq(lambda d: power(spread, d, n, times) - wanted, 0.0, 40 * error, xtol=1e-9))


def problems_needed(spread: Spread, difference: float, repeats: float, *, wanted: float = 0.8) -> int | None:
    """Problems needed to detect a true difference with a power of `wanted`; None for more than ten million."""
    if difference == 0:
        raise ValueError("no number of problems shows a difference of 0; give one in (0, 1]")
    low, high = 1, 2  # low is too few
    while power(spread, difference, high, repeats) < wanted:
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(spread, difference, middle, repeats) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """problems: how many it takes with `repeats` repeats each; None if no number is enough."""

    repeats: float
    problems: int | None


def designs(
    spread: Spread, difference: float, repeats: Sequence[float] = (1, 4, 16, 64), *, wanted: float = 0.8
) -> list[Design]:
    """How many problems it takes to see `difference` (0.01 is one point), for each number of repeats.

    If only one repeat was observed, just the design with one repeat.
    """
    times = repeats if spread.within is not None else (spread.repeats,)
    return [Design(repeats=r, problems=problems_needed(spread, difference, r, wanted=wanted)) for r in times]
