"""Which of two methods is better: paired by problem and repeat, with an interval and exact tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pacore_lab.analysis.intervals import difference_interval
from pacore_lab.analysis.methods import Floats, Method, row_means

EXACT = 16
"""Up to this many problems that differ, all sign flips are tried."""
FLIPS = 20_000
"""Random sign flips beyond that; they give p = 0.05 to within 0.003."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Accuracy of `method` minus that of `baseline`, over the (problem, repeat) pairs where both were graded.

    mean, low, high: in [-1, 1], with a 95 % interval over problems. ttc_ratio: tokens of the method per token of the
    baseline, over the pairs where both finished. p: two-sided, from sign flips of the problems' differences. p_mcnemar:
    exact, if both have one repeat with scores 0 or 1. p_adjusted: p adjusted for the table the difference is in
    (`table`).
    """

    method: str
    baseline: str
    problems: int
    mean: float
    low: float
    high: float
    ttc_ratio: float | None
    pairs: int | None = None
    p: float | None = None
    p_mcnemar: float | None = None
    p_adjusted: float | None = None

    def verdict(self, margin: float) -> str:
        """What the interval says about a difference of `margin` (a share of 1), such as one that would not matter.

        "equal": all of it within the margin on both sides; "not worse": all above -margin; "better", "worse": all
        beyond the margin; "open": none of these. A 95 % interval makes each side a one-sided test at 2.5 % (Schuirmann,
        J. Pharmacokinet. Biopharm. 15, 1987; for "not worse" Piaggio et al., JAMA 308, 2012).
        """
        if self.low > margin:
            return "better"
        if self.low >= -margin:
            return "equal" if self.high <= margin else "not worse"
        return "worse" if self.high < -margin else "open"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pairs:
    """Two methods on their common problems: scores and tokens [problems, repeats], nan where one of them has none.

    leads: score of the method minus that of the baseline. repeats: graded pairs per problem with any, as far as they
    are independent. square: mean squared lead of a pair, nan without pairs.
    """

    leads: Floats
    scores: tuple[Floats, Floats]
    ttc: tuple[Floats, Floats]
    repeats: float
    square: float


def pairs(method: Method, baseline: Method) -> Pairs:
    """The common problems and repeats of two methods, in the order of `method`. Raises ValueError if there are none."""
    theirs = {problem: row for row, problem in enumerate(baseline.problems)}
    rows = [(row, theirs[problem]) for row, problem in enumerate(method.problems) if problem in theirs]
    if not rows:
        raise ValueError(f"{method.name} and {baseline.name} have no problem in common; run both on the same problems=")
    repeats = min(method.scores.shape[1], baseline.scores.shape[1])
    mine, other = (list(column) for column in zip(*rows, strict=True))
    scores = method.scores[mine, :repeats], baseline.scores[other, :repeats]
    leads = scores[0] - scores[1]
    paired = np.isfinite(leads)
    per_problem = paired.sum() / max(int(paired.any(axis=1).sum()), 1)
    return Pairs(
        leads=leads,
        scores=scores,
        ttc=(method.ttc[mine, :repeats], baseline.ttc[other, :repeats]),
        repeats=max(1.0, float(per_problem) * min(method.independence, baseline.independence)),
        square=float((leads[paired] ** 2).mean()) if paired.any() else math.nan,
    )


def paired(method: Method, baseline: Method, *, seed: int = 0) -> Difference:
    """The difference of two methods. Raises ValueError if no (problem, repeat) was graded in both."""
    common = pairs(method, baseline)
    means = row_means(common.leads)
    means = means[np.isfinite(means)]
    if not len(means):
        raise ValueError(f"{method.name} and {baseline.name} have no graded (problem, repeat) in common")
    low, high = difference_interval(means.tolist(), common.repeats, common.square)
    finished = np.isfinite(common.ttc[0]) & np.isfinite(common.ttc[1])
    spent, base = (math.fsum(tokens[finished]) for tokens in common.ttc)
    return Difference(
        method=method.name,
        baseline=baseline.name,
        problems=len(means),
        pairs=int(np.isfinite(common.leads).sum()),
        mean=math.fsum(means) / len(means),
        low=low,
        high=high,
        ttc_ratio=spent / base if base else None,
        p=sign_flip(means, seed=seed),
        p_mcnemar=_mcnemar(*common.scores),
    )


def table(methods: Sequence[Method], baseline: Method, *, seed: int = 0) -> list[Difference]:
    """Each method against the baseline, with p adjusted for their number.

    Of the findings at p_adjusted < 0.05, one in 20 is false on average: Benjamini & Hochberg (J. R. Stat. Soc. B 57,
    1995). Comparisons with one baseline depend positively on one another, which this allows (Benjamini & Yekutieli,
    Ann. Stat. 29, 2001).
    """
    from scipy import stats

    found = [paired(method, baseline, seed=seed) for method in methods]
    if not found:
        return []
    adjusted = stats.false_discovery_control([difference.p for difference in found])
    return [replace(difference, p_adjusted=float(p)) for difference, p in zip(found, adjusted, strict=True)]


def sign_flip(differences: Floats, *, seed: int = 0) -> float:
    """Two-sided p of a mean difference over problems: how often random signs give a mean as far from 0.

    differences: [problems]. Up to 16 nonzero differences, all signs are tried; beyond that, 20,000 random ones. The
    observed signs count among these, so p is never 0 (Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010).
    """
    values = differences[differences != 0]
    observed = abs(values.sum()) * (1 - 1e-9)  # sums that differ only by rounding count as equally far
    if len(values) <= EXACT:
        codes = np.arange(2 ** len(values))[:, None]
        signs = 1 - 2.0 * ((codes >> np.arange(len(values))) & 1)
        return float((np.abs(signs @ values) >= observed).mean())
    rng = np.random.default_rng(seed)
    far = 0
    for _ in range(0, FLIPS, 1_000):
        signs = 1 - 2.0 * rng.integers(0, 2, (1_000, len(values)), dtype=np.int8)
        far += int((np.abs(signs @ values) >= observed).sum())
    return (far + 1) / (FLIPS + 1)


def _mcnemar(mine: Floats, other: Floats) -> float | None:
    """Exact p of the discordant problems; None if a problem has several repeats, or a score between 0 and 1."""
    from scipy import stats

    both = np.isfinite(mine) & np.isfinite(other)
    if mine.shape[1] != 1 or not np.isin([mine[both], other[both]], (0.0, 1.0)).all():
        return None
    won, lost = int((mine > other)[both].sum()), int((mine < other)[both].sum())
    return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
