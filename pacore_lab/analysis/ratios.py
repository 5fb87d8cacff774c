"""95 % interval of a rate pooled over clusters of unequal sizes: all successes over all trials."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pacore_lab.analysis.intervals import DOUBT, NORMAL, student


def pooled_interval(successes: Sequence[float], trials: Sequence[float]) -> tuple[float, float]:
    """95 % interval of sum(successes) / sum(trials), one entry per cluster; trials within a cluster may be dependent.

    Wilson's interval at the effective number of trials, as in `accuracy_interval`, with the variance of a ratio
    estimator (Cochran, Sampling Techniques, 1977, section 6.3). Clusters are assumed to be independent. The fewer
    clusters saw both outcomes, the more the effective number shrinks towards one trial per cluster (`DOUBT`; Kish's
    number for clusters of unequal sizes). If nothing or everything succeeded, it is that number, since the spread then
    says nothing.
    Clusters without trials are ignored. Raises ValueError if there are no trials, or for successes not in [0, trials].
    """
    if any(not 0 <= won <= n for won, n in zip(successes, trials, strict=True)):
        raise ValueError("successes must lie between 0 and the trials of their cluster")
    known = [(won, n) for won, n in zip(successes, trials, strict=True) if n]
    total = math.fsum(n for _, n in known)
    if not total:
        raise ValueError("there are no trials, so there is no rate")
    p = math.fsum(won for won, _ in known) / total
    clusters = total**2 / math.fsum(n * n for _, n in known)
    share = 1.0  # ratio of clusters to effective trials
    if len(known) > 1 and 0 < p < 1:
        squares = math.fsum((won - p * n) ** 2 for won, n in known)
        variance = squares / total**2 * len(known) / (len(known) - 1)
        share = min(1.0, max(variance * clusters / (p * (1 - p)), clusters / total))
    told = min(sum(won > 0 for won, _ in known), sum(won < n for won, n in known))
    share = (told * share + DOUBT) / (told + DOUBT)
    t = NORMAL + (student(len(known) - 1) - NORMAL) * max(0.0, 1 - share)
    n = clusters / share
    centre = (p + t * t / (2 * n)) / (1 + t * t / n)
    half = t / (1 + t * t / n) * math.sqrt(p * (1 - p) / n + t * t / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))  # p would be inside without rounding errors
