"""95 % intervals and standard errors, clustered by problem.

The unit of inference is the problem (Miller, arXiv 2411.00640): repeats of one problem are averaged first, intervals
are over problems. They go beyond that paper's normal ones, which are too narrow for the 30 problems of an AIME and near
0 and 1; `experiments/interval_coverage` records how often they cover.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pacore_lab.analysis.methods import Method

NORMAL = 1.959964
"""Two-sided 95 % of a normal distribution."""
DOUBT = 0.25
"""Problems' worth of doubt whether repeats say more than one score would; what coverage came out best with."""


def accuracy_interval(problem_means: Sequence[float], repeats: float) -> tuple[float, float]:
    """95 % interval of an accuracy, clustered by problem: Wilson's at the effective sample size.

    problem_means: each in [0, 1]. repeats: graded repeats per problem, on average, and no more than they are worth:
    of repeats that share a pool `Method.repeats` (64 votes @256 of one pool of 512 are worth 2, not 64).
    The clustered standard error says how many independent 0/1 scores the data are worth, p(1 - p) / se^2; Wilson's
    interval with that n replaces the symmetric one (Dean & Pagano, J. Surv. Stat. Methodol. 3, 2015; Franco et al.,
    ibid. 7, 2019). So it stays inside [0, 1], has a width where all scores agree, and becomes Miller's interval as
    problems grow. Two things are ours: the standard error of few right or few wrong answers is drawn towards that of a
    single repeat (`DOUBT`), and the quantile lies between the normal's, where every problem is right or wrong in all
    repeats so that p alone gives the error, and Student's t, where the error is estimated from the spread.
    """
    n, p = len(problem_means), _mean(problem_means)
    share = 1.0
    if n > 1 and 0 < p < 1:
        share = max(_variance(problem_means) / (p * (1 - p)), 1 / max(repeats, 1.0))
    return _wilson(p, n, share, freedom=n - 1)


def stratified_interval(groups: Sequence[Sequence[float]], repeats: float) -> tuple[float, float]:
    """95 % interval of the unweighted mean over groups of their accuracies, as `accuracy_interval`.

    groups: the problem means of each. A group of one problem has no spread of its own; it takes the others' mean.
    """
    means = [_mean(group) for group in groups]
    p = _mean(means)
    worth = len(groups) ** 2 / sum(1 / len(group) for group in groups)  # problems, were they drawn without groups
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

    repeats: as of `accuracy_interval`. square: mean squared difference of single (problem, repeat) pairs, for 0/1
    scores the share of pairs that differ; without it the least it can be. Student's t on the differences and two
    pseudo-problems, one won and one lost by 1 / what the repeats of a problem are worth, which the spread over problems
    tells (with `DOUBT`). With one repeat of 0/1 scores that is the adjusted Wald interval for paired proportions
    (Bonett & Price, Br. J. Math. Stat. Psychol. 65, 2012). The plain t-interval is [0, 0], certainty, where a handful
    of problems happen to agree, and scipy's BCa bootstrap is nan there.
    """
    n, mean = len(problem_differences), _mean(problem_differences)
    differing = _mean([abs(x) for x in problem_differences]) if square is None else square
    share, single = 1.0, differing - mean**2  # variance of one pair
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
    """Of an accuracy. total: over problems, what another set of problems would give. within: conditional on these

    problems, what other samples would give; at most that much where repeats share a pool. None where it cannot be told:
    total needs two problems, within two repeats of one problem that do not share everything.
    """

    total: float | None
    within: float | None


def standard_errors(method: Method) -> StandardErrors:
    """Clustered by problem, and apart that of the sampling alone (Miller, arXiv 2411.00640, sections 2 and 3).

    Repeats that share a pool vary less than their mean does: with r the share of members that two of them have in
    common, their correlation is at most r, and their variance is divided by 1 - r. `nested` knows votes better.
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
    """1 / what the repeats of a problem are worth; `seen`: problems' worth of scores that tell it."""
    return (seen * share + DOUBT) / (seen + DOUBT)


def _wilson(p: float, problems: float, share: float, freedom: int) -> tuple[float, float]:
    """share: variance of the problem means over that of single scores, p(1 - p)."""
    share = _doubted(share, problems * min(p, 1 - p))
    t = NORMAL + (student(freedom) - NORMAL) * max(0.0, 1 - share)
    effective = problems / share
    centre = (p + t * t / (2 * effective)) / (1 + t * t / effective)
    half = t / (1 + t * t / effective) * math.sqrt(p * (1 - p) / effective + t * t / (4 * effective**2))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))  # p is inside, but for rounding


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1)


def student(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t; of one degree of freedom for fewer."""
    from scipy import stats  # a second of every start, were it imported above

    return float(stats.t.ppf(0.975, max(freedom, 1)))
