"""95 % intervals and standard errors, clustered by problem.

The unit of inference is the problem (Miller, arXiv 2411.00640): repeats of a problem are averaged first, and intervals
are over problems. That paper's normal intervals are too narrow for the 30 problems of an AIME and near 0 and 1; these
go beyond them. `experiments/interval_coverage` records how often they cover.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pacore_lab.analysis.methods import Method

NORMAL = 1.959964
"""Two-sided 95 % quantile of a normal distribution."""
DOUBT = 0.25
"""Doubt that repeats say more than a single score would, as a number of problems; this value gave the best coverage."""


def accuracy_interval(problem_means: Sequence[float], repeats: float) -> tuple[float, float]:
    """95 % interval of an accuracy, clustered by problem: Wilson's interval at the effective sample size.

    problem_means: each in [0, 1]. repeats: mean number of graded repeats per problem, and no more than they are worth:
    for repeats that share a pool, `Method.repeats` (64 votes @256 from one pool of 512 are worth 2, not 64).
    The clustered standard error says how many independent 0/1 scores the data are worth, p(1 - p) / se^2. Wilson's
    interval with that n replaces the symmetric one (Dean & Pagano, J. Surv. Stat. Methodol. 3, 2015; Franco et al.,
    ibid. 7, 2019). So it stays inside [0, 1], has a width where all scores agree, and becomes Miller's interval as
    problems grow.
    Two things are ours. With few right (or few wrong) answers the standard error is pulled towards that of a single
    repeat (`DOUBT`). If every problem is right or wrong in all its repeats, p alone gives the error and the normal
    quantile applies; the more the error depends on the observed spread, the closer the quantile moves to Student's t.
    """
    n, p = len(problem_means), _mean(problem_means)
    share = 1.0
    if n > 1 and 0 < p < 1:
        share = max(_variance(problem_means) / (p * (1 - p)), 1 / max(repeats, 1.0))
    return _wilson(p, n, share, freedom=n - 1)


def stratified_interval(groups: Sequence[Sequence[float]], repeats: float) -> tuple[float, float]:
    """95 % interval of the unweighted mean over groups of their accuracies, built like `accuracy_interval`.

    groups: the problem means of each group. A group of one problem has no spread of its own; it takes the others' mean.
    """
    means = [_mean(group) for group in groups]
    p = _mean(means)
    worth = len(groups) ** 2 / sum(1 / len(group) for group in groups)  # equivalent number of ungrouped problems
    known = [_variance(group) for group in groups if len(group) > 1]
    share = 1.0
    if known and 0 < p < 1:
        usual = _mean(known)
        spread = [(_variance(group) if len(group) > 1 else usual) / len(group) for group in groups]
        error = math.fsum(spread) / len(groups) ** 2
        share = max(error * worth / (p * (1 - p)), 1 / max(repeats, 1.0))
    return _wilson(p, worth, share, freedom=sum(map(len, groups)) - len(groups))


def difference_interval(
    problem_differences: Sequence[float], repeats: float, square: float | None = None
) -> tuple[float, float]:
    """95 % interval of a mean paired difference over problems, each difference in [-1, 1].

    repeats: as in `accuracy_interval`. square: mean squared difference of single (problem, repeat) pairs, for 0/1
    scores the share of pairs that differ; by default its smallest possible value.
    The interval is Student's t on the differences and two pseudo-problems, one won and one lost by 1 / what a problem's
    repeats are worth. The spread over problems estimates that worth (with `DOUBT`). With one repeat of 0/1 scores, this
    is the adjusted Wald interval for paired proportions (Bonett & Price, Br. J. Math. Stat. Psychol. 65, 2012). If a
    handful of problems happen to agree, the plain t-interval is [0, 0], certainty, and scipy's BCa bootstrap is nan.
    """
    n, mean = len(problem_differences), _mean(problem_differences)
    differing = _mean([abs(x) for x in problem_differences]) if square is None else square
    share, single = 1.0, differing - mean**2  # single: the variance of one pair
    if n > 1 and single > 0:
        share = min(1.0, max(_variance(problem_differences) / single, 1 / max(repeats, 1.0)))
    pseudo = _doubted(share, n * differing)
    values = [*problem_differences, pseudo, -pseudo]
    centre = _mean(values)
    error = math.sqrt(sum((x - centre) ** 2 for x in values)) / len(values)
    t = student(n - 1)
    return max(-1.0, centre - t * error), min(1.0, centre + t * error)


@dataclass(frozen=True, kw_only=True, slots=True)
class StandardErrors:
    """Standard errors of an accuracy. total: over problems, for another set of problems. within: for other samples on
    these problems; an upper bound if repeats share a pool. None if it cannot be estimated: total needs two problems,
    within two repeats of one problem that do not share everything.
    """

    total: float | None
    within: float | None


def standard_errors(method: Method) -> StandardErrors:
    """Errors clustered by problem, and of the sampling alone (Miller, arXiv 2411.00640, sections 2 and 3).

    Repeats that share a pool vary less among themselves than fresh ones. With r the share of members that two of them
    have in common, their correlation is at most r, so their variance is divided by 1 - r. `nested` is better for votes.
    """
    scores = method.scores[np.isfinite(method.scores).any(axis=1)]
    means, counts = method.problem_means, np.isfinite(scores).sum(axis=1)
    means = means[np.isfinite(means)]
    n = len(means)
    total = math.sqrt(_variance(means.tolist()) / n) if n > 1 else None
    several = counts > 1
    if not several.any():
        return StandardErrors(total=total, within=None)
    squares = np.where(np.isfinite(scores), (scores - means[:, None]) ** 2, 0.0).sum(axis=1)
    spread = squares[several] / (counts[several] - 1)
    common = (1 / method.independence - 1) / max(float(counts.mean()) - 1, 1e-9)
    if common > 1 - 1e-9:
        return StandardErrors(total=total, within=None)
    variances = np.full(n, spread.mean())
    variances[several] = spread
    worth = np.maximum(counts * method.independence, 1.0)
    within = math.sqrt(float((variances / (1 - common) / worth).sum())) / n
    return StandardErrors(total=total, within=within)


def _doubted(share: float, seen: float) -> float:
    """1 / what a problem's repeats are worth. seen: the evidence for that worth, in problems."""
    return (seen * share + DOUBT) / (seen + DOUBT)


def _wilson(p: float, problems: float, share: float, freedom: int) -> tuple[float, float]:
    """share: variance of the problem means over that of single scores, p(1 - p)."""
    share = _doubted(share, problems * min(p, 1 - p))
    t = NORMAL + (student(freedom) - NORMAL) * max(0.0, 1 - share)
    effective = problems / share
    centre = (p + t * t / (2 * effective)) / (1 + t * t / effective)
    half = t / (1 + t * t / effective) * math.sqrt(p * (1 - p) / effective + t * t / (4 * effective**2))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))  # p would be inside without rounding errors


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1)


def student(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t; fewer than one degree of freedom counts as one."""
    from scipy import stats  # at the top it would slow every start by a second

    return float(stats.t.ppf(0.975, max(freedom, 1)))
