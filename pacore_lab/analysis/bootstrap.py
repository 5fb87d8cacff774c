"""Nested bootstrap of a vote over shared pools: problems, then pool members, then the redraws of k.

64 votes @256 from one pool of 512 are not 64 independent samples: any two of them share half of their members.
Resampling the pool shows what another pool would have given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pacore_lab.analysis.at_k import TIE, Pools, majority
from pacore_lab.analysis.intervals import NORMAL, student
from pacore_lab.analysis.methods import Floats, row_means

BLOCK = 4_000_000
"""Array elements processed at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Nested:
    """The accuracy of a vote and its bootstrap distribution: arrays [draws], centred on the estimate.

    problems: how many have a grade. accuracy: their mean maj@k, as `majority` estimates it with as many redraws.
    within: resamples pool members and redraws, for these problems. both: also resamples the problems, with its spread
    scaled to the right variance. Resampling at both levels counts the pools' part twice, since the spread of the
    observed problem means already contains it (Davison & Hinkley, Bootstrap Methods and their Application, 1997,
    section 3.8).
    """

    problems: int
    accuracy: float
    within: Floats
    both: Floats

    @property
    def errors(self) -> tuple[float, float]:
        """Standard errors: (within, both)."""
        return float(self.within.std(ddof=1)), float(self.both.std(ddof=1))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % percentile interval over problems, widened by the ratio of Student's t quantile to the normal's.

        `accuracy_interval` is better near 0 and 1.
        """
        wider = student(self.problems - 1) / NORMAL
        low, high = (self.accuracy + wider * (end - self.accuracy) for end in _middle(self.both))
        return max(0.0, low), min(1.0, high)

    @property
    def interval_within(self) -> tuple[float, float]:
        """95 % percentile interval for these problems."""
        return _middle(self.within)


def nested(pools: Pools, k: int, *, redraws: int = 64, draws: int = 1_000, seed: int = 0) -> Nested:
    """Bootstrap of the mean over problems of maj@k, with `redraws` subsets of each pool, as in the estimate.

    A class's score is the mean over its graded samples; votes of weight 0 do not count.
    Raises ValueError if k is not between 1 and the size of the smallest pool, or if a problem has several pools.
    """
    if len(set(pools.problems)) < len(pools.problems):
        raise ValueError("a problem has several pools; the nested bootstrap takes one pool for each problem")
    seen = row_means(majority(pools, (k,), redraws=redraws, seed=seed).scores[0])
    rng = np.random.default_rng([seed, 1])
    means = np.array([_resampled(pools, row, k, redraws, draws, rng) for row in range(len(pools.problems))])
    known = np.isfinite(means).all(axis=1) & np.isfinite(seen)
    if not known.any():
        raise ValueError("no pool has a grade for each of its winners; there is no accuracy to resample")
    means, accuracy = means[known], float(seen[known].mean())
    within = means.mean(axis=0)
    n = len(means)
    chosen = rng.integers(0, n, (draws, n))
    both = means[chosen, np.arange(draws)[:, None]].mean(axis=1)
    spread, noise = both.var(ddof=1), within.var(ddof=1)
    scale = 1.0
    if n > 1 and spread > 0:  # n / (n - 1): resampling n problems underestimates their variance by this factor
        scale = math.sqrt(max(noise, (spread - noise) * n / (n - 1)) / spread)
    return Nested(
        problems=n,
        accuracy=accuracy,
        within=np.clip(accuracy + within - within.mean(), 0.0, 1.0),
        both=np.clip(accuracy + scale * (both - both.mean()), 0.0, 1.0),
    )


def _middle(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _resampled(pools: Pools, row: int, k: int, redraws: int, draws: int, rng: np.random.Generator) -> Floats:
    """[draws]: a problem's accuracy over `redraws` subsets of a resampled pool.

    Members are exchangeable, so the subsets can be the same places in every resampled pool. It does not matter which
    samples of a class were drawn, so the counts of classes are products of matrices.
    """
    size = int(pools.sizes[row])
    classes, scores = pools.classes[row, :size], pools.scores[row, :size]
    weights = np.ones(size) if pools.weights is None else pools.weights[row, :size]
    count = max(int(classes.max()) + 1, 1)
    votes = np.zeros((size, count), dtype=np.float32 if pools.weights is None else np.float64)
    valid = classes >= 0
    votes[np.flatnonzero(valid), classes[valid]] = weights[valid]
    graded = valid & np.isfinite(scores)
    sums, heads = np.zeros(count), np.zeros(count)
    np.add.at(sums, classes[graded], scores[graded])
    np.add.at(heads, classes[graded], 1)
    score = np.divide(sums, heads, out=np.full(count, np.nan), where=heads > 0)
    nothing = 0.0 if np.isfinite(scores).any() else np.nan
    subsets = (np.argsort(rng.random((redraws, size)), axis=1).argsort(axis=1) < k).astype(votes.dtype)
    means = []
    step = max(1, BLOCK // (size * count))
    for start in range(0, draws, step):
        members: npt.NDArray[np.int64] = rng.integers(0, size, (min(step, draws - start), size))
        cast = subsets @ votes[members]  # [draws, redraws, classes]
        most = cast.max(axis=2, keepdims=True)
        wins = (cast > 0) & (cast >= TIE * most)
        tied = wins.sum(axis=2)
        won = np.where(wins, score, 0.0).sum(axis=2) / np.maximum(tied, 1)
        means.append(row_means(np.where(tied > 0, won, nothing)))
    return np.concatenate(means)
