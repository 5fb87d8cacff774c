"""Stop rules: whether the answers so far are enough (`pacore_lab.interfaces.StopRule`). Invalid ones are not votes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pacore_lab.errors import require_count, require_share

NODES, WEIGHTS = np.polynomial.legendre.leggauss(128)


@dataclass(frozen=True, kw_only=True)
class Beta:
    """P(Beta(v1 + 1, v2 + 1) > 1/2) >= threshold, where v1 and v2 are the votes of the two largest classes.

    This is the Beta criterion of arXiv 2305.11860: under a uniform prior, the probability that the leader has the
    larger share of the two classes' votes.
    """

    threshold: float = 0.95
    needs = frozenset({"answers"})

    def __post_init__(self) -> None:
        require_share("strategy.rule.threshold", self.threshold)

    def __call__(self, classes: Sequence[int | None]) -> bool:
        sizes = _sizes(classes)
        return bool(sizes) and beta(*(*sizes, 0)[:2]) >= self.threshold


@dataclass(frozen=True, kw_only=True)
class Dirichlet:
    """P(the largest class so far is the likeliest answer) >= threshold (the Dirichlet criterion of arXiv 2305.11860).

    The prior is uniform over the classes seen, so an unseen class has no probability. If only one class was seen, a
    second one without votes stands for all others, as in the authors' code. Up to two classes this is `Beta`.
    """

    threshold: float = 0.95
    needs = frozenset({"answers"})

    def __post_init__(self) -> None:
        require_share("strategy.rule.threshold", self.threshold)

    def __call__(self, classes: Sequence[int | None]) -> bool:
        sizes = _sizes(classes)
        return bool(sizes) and dirichlet(sizes) >= self.threshold


@dataclass(frozen=True, kw_only=True)
class Unanimous:
    """All answers of a window are in one class (arXiv 2401.10480). Windows are consecutive blocks and do not slide. An
    invalid answer never agrees.
    """

    window: int = 5
    needs = frozenset({"answers"})

    def __post_init__(self) -> None:
        require_count("strategy.rule.window", self.window, least=2)

    def __call__(self, classes: Sequence[int | None]) -> bool:
        whole = len(classes) - len(classes) % self.window
        windows = (set(classes[start : start + self.window]) for start in range(0, whole, self.window))
        return any(len(window) == 1 and None not in window for window in windows)


@dataclass(frozen=True, kw_only=True)
class Share:
    """At least `least` answers are valid, and the largest class holds `share` of all trajectories, invalid included."""

    least: int
    share: float
    needs = frozenset({"answers"})

    def __post_init__(self) -> None:
        require_count("strategy.rule.least", self.least)
        require_share("strategy.rule.share", self.share)

    def __call__(self, classes: Sequence[int | None]) -> bool:
        sizes = _sizes(classes)
        return sum(sizes) >= self.least and sizes[0] >= self.share * len(classes)


@lru_cache(maxsize=2**16)
def beta(first: int, second: int) -> float:
    """P(Beta(first + 1, second + 1) > 1/2), exactly: a binomial tail of first + second + 1 fair coins."""
    coins = first + second + 1
    tail = sum(math.comb(coins, heads) for heads in range(first + 1))
    return float(tail / 2**coins)


@lru_cache(maxsize=2**16)
def dirichlet(sizes: tuple[int, ...]) -> float:
    """P(p_1 > p_2, ..., p_m) for p ~ Dirichlet(sizes + 1), with sizes in descending order.

    The shares are independent Gamma(size + 1) variables over their sum. The probability is thus an integral over y: the
    first variable's density times the others' distribution functions. Gauss-Legendre, within 1e-9 of the exact value.
    """
    if len(sizes) <= 2:
        return beta(*(*sizes, 0)[:2])
    from scipy.special import gammainc, gammaln

    shape = sizes[0] + 1
    spread = 12 * math.sqrt(shape)
    low, high = max(shape - spread, 0.0), shape + spread + 24
    y = low + (high - low) * (NODES + 1) / 2
    log_density = sizes[0] * np.log(y) - y - gammaln(shape)
    below = np.ones_like(y)
    for size, times in Counter(sizes[1:]).items():
        below *= gammainc(size + 1, y) ** times
    return min(float((high - low) / 2 * np.sum(WEIGHTS * np.exp(log_density) * below)), 1.0)


def _sizes(classes: Sequence[int | None]) -> tuple[int, ...]:
    """Votes per class, the largest first."""
    return tuple(sorted(Counter(name for name in classes if name is not None).values(), reverse=True))
