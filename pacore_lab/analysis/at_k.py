"""Unbiased votes and pass@k over pools of samples: k of a pool's N, drawn without replacement, many times over.

A vote is that of `pacore_lab.votes.winners`: the class with the largest weight wins. Tied classes share the mean of
their scores. Invalid answers never win but cost their tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pacore_lab.analysis.methods import Floats, Line, Method, Overlap

BLOCK = 4_000_000
"""Array elements processed at a time: 32 MB of float64."""
TIE = 1 - 1e-9  # weights that differ only by rounding tie


@dataclass(frozen=True, kw_only=True, eq=False)
class Pools:
    """Graded samples by problem: arrays [rows, samples], of which the first `sizes[row]` places of a row are filled.

    problems: one per row; rows with the same problem are separate pools. classes: the answers' classes, numbered from 0
    within a row, -1 for an invalid answer. scores: nan if ungraded. tokens: generated tokens. weights: of the votes;
    None counts heads. independence: of a problem's rows, below 1 if they share samples (`Method`).
    """

    problems: tuple[str, ...]
    sizes: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    scores: Floats
    tokens: Floats
    weights: Floats | None = None
    independence: float = 1.0

    @classmethod
    def of(
        cls,
        problems: Sequence[str],
        classes: Sequence[Sequence[int | None]],
        scores: Sequence[Sequence[float | None]],
        tokens: Sequence[Sequence[float]],
        weights: Sequence[Sequence[float]] | None = None,
        independence: float = 1.0,
    ) -> Pools:
        """Builds the arrays from one sequence per row. None stands for an invalid answer or an ungraded sample.

        Raises ValueError for rows of unequal lengths, an empty row, and a weight that is negative or not finite.
        """
        sizes = np.array([len(row) for row in classes], dtype=np.int64)
        tables: list[Floats] = []
        for table in (classes, scores, tokens, *(() if weights is None else (weights,))):
            if len(table) != len(problems) or [len(row) for row in table] != sizes.tolist() or not sizes.all():
                raise ValueError("a pool needs at least one sample, and a class, a score and tokens of each")
            full = np.full((len(sizes), int(sizes.max(initial=0))), np.nan)
            for place, row in enumerate(table):
                full[place, : len(row)] = [np.nan if value is None else value for value in row]
            tables.append(full)
        inside = np.arange(tables[0].shape[1]) < sizes[:, None]
        if weights is not None and (wrong := tables[3][inside & ~((tables[3] >= 0) & np.isfinite(tables[3]))]).size:
            raise ValueError(f"a vote weighs {wrong[0]}; weights must be finite and 0 or more")
        numbered = np.full(tables[0].shape, -1, dtype=np.int64)
        for place, row in enumerate(tables[0]):
            valid = np.isfinite(row)
            numbered[place, valid] = np.unique(row[valid], return_inverse=True)[1]
        return cls(
            problems=tuple(problems),
            sizes=sizes,
            classes=numbered,
            scores=tables[1],
            tokens=tables[2],
            weights=None if weights is None else tables[3],
            independence=independence,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Votes:
    """Arrays [ks, rows, redraws]. scores: nan if a winner, or every sample, was ungraded. ttc: tokens of all k samples.
    critical_path: tokens of the longest.
    """

    ks: tuple[int, ...]
    scores: Floats
    ttc: Floats
    critical_path: Floats


def pools_of(lines: Iterable[Line]) -> Pools:
    """The first round of each line as a pool of its own; streams. Lines without graded samples are left out.

    Classes are numbered per line, so repeats cannot be merged: k goes up to the width of the first round.
    """
    problems: list[str] = []
    classes, scores, tokens = [], [], []
    overlap = Overlap()
    for line in lines:
        samples = line["samples"]
        if not samples:
            continue
        spent = {t["id"]: t["tokens"] for round_ in line["trajectories"] for t in round_}
        problems.append(line["request_id"])
        classes.append([sample["class"] for sample in samples])
        scores.append([sample["score"] for sample in samples])
        tokens.append([float(spent.get(sample["id"], np.nan)) for sample in samples])
        overlap.add(sample["id"] for sample in samples)
    return Pools.of(problems, classes, scores, tokens, independence=overlap.independence)


def majority(pools: Pools, ks: Sequence[int], *, redraws: int = 64, seed: int = 0) -> Votes:
    """maj@k for each k, from `redraws` random subsets per row; the smaller subsets are contained in the larger.

    Raises ValueError if a k is not between 1 and the size of the smallest pool.
    """
    _check(pools, ks)
    rng = np.random.default_rng(seed)
    shape = (len(ks), len(pools.problems), redraws)
    votes = Votes(ks=tuple(ks), scores=np.empty(shape), ttc=np.empty(shape), critical_path=np.empty(shape))
    rows = max(1, BLOCK // max(1, redraws * pools.classes.shape[1]))
    for start in range(0, len(pools.problems), rows):
        some = slice(start, start + rows)
        order = _orders(pools.sizes[some], redraws, max(ks), rng)
        for place, found in zip(np.argsort(ks), _count(pools, some, order, sorted(ks)), strict=True):
            votes.scores[place, some], votes.ttc[place, some], votes.critical_path[place, some] = found
    return votes


def vote_methods(pools: Pools, ks: Sequence[int], *, redraws: int = 64, seed: int = 0) -> list[Method]:
    """`majority` as one method per k, for `curve` and `paired`; each redraw is a repeat, a problem's rows side by side.

    Two redraws of a pool overlap by k / N, so R redraws are worth at least 1 / (k/N + (1 - k/N) / R) repeats.
    """
    votes = majority(pools, ks, redraws=redraws, seed=seed)
    places: dict[str, list[int]] = {}
    for place, problem in enumerate(pools.problems):
        places.setdefault(problem, []).append(place)
    problems, rows = tuple(places), list(places.values())
    width = max(map(len, rows)) * redraws
    methods = []
    for column, k in enumerate(votes.ks):
        shared = float((k / pools.sizes).mean())
        tables = {key: np.full((len(problems), width), np.nan) for key in ("scores", "ttc", "critical_path")}
        for key, table in tables.items():
            for row, members in zip(table, rows, strict=True):
                row[: len(members) * redraws] = getattr(votes, key)[column, members].ravel()
        worth = pools.independence / (1 + (redraws - 1) * shared)
        methods.append(Method.of(f"majority vote @{k}", problems, k=k, independence=worth, **tables))
    return methods


def pass_at_k(samples: npt.ArrayLike, passed: npt.ArrayLike, k: npt.ArrayLike) -> Floats:
    """The chance that one of k samples passes, unbiased: 1 - C(n - c, k) / C(n, k) (arXiv 2107.03374, section 2.1).

    samples n, passed c, k: whole numbers, broadcast against one another. nan if n < k, where it is undefined.
    """
    from scipy.special import gammaln

    n, c, most = (np.asarray(value, dtype=np.float64) for value in (samples, passed, k))
    left = n - c
    with np.errstate(invalid="ignore"):
        none = np.exp(gammaln(left + 1) - gammaln(left - most + 1) - gammaln(n + 1) + gammaln(n - most + 1))
    chance = np.where(c > 0, 1.0 - np.where(left >= most, none, 0.0), 0.0)
    return np.where(n >= most, np.clip(chance, 0.0, 1.0), np.nan)


def pass_rates(pools: Pools, ks: Sequence[int]) -> Floats:
    """pass@k of each pool, [ks, rows]. A sample passes with a score of 1; ungraded samples are left out."""
    graded = np.isfinite(pools.scores)
    passed = (graded & (pools.scores == 1)).sum(axis=1)
    return pass_at_k(graded.sum(axis=1)[None, :], passed[None, :], np.asarray(ks)[:, None])


def _check(pools: Pools, ks: Sequence[int]) -> None:
    if not len(pools.sizes):
        raise ValueError("there are no graded samples to vote over")
    smallest = int(np.argmin(pools.sizes))
    for k in ks:
        if not 1 <= k <= pools.sizes[smallest]:
            size = f"{pools.sizes[smallest]} samples of {pools.problems[smallest]}"
            raise ValueError(f"k={k} is not between 1 and the smallest pool ({size})")


def _orders(sizes: npt.NDArray[np.int64], redraws: int, k: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """[rows, redraws, k]: the places of k members in random order."""
    keys = rng.random((len(sizes), redraws, int(sizes.max())))
    keys[np.broadcast_to(np.arange(keys.shape[2]) >= sizes[:, None, None], keys.shape)] = np.inf
    return np.argsort(keys, axis=2)[:, :, :k]


def _count(
    pools: Pools, some: slice, order: npt.NDArray[np.int64], ks: Sequence[int]
) -> Iterable[tuple[Floats, Floats, Floats]]:
    """Score, total tokens and longest tokens of the first k of each order [rows, redraws], for each k, ascending."""
    rows = np.arange(order.shape[0])[:, None, None]
    classes, scores, tokens = (table[some][rows, order] for table in (pools.classes, pools.scores, pools.tokens))
    weights = None if pools.weights is None else pools.weights[some][rows, order]
    shape = (*order.shape[:2], int(classes.max()) + 2)  # the last class collects invalid answers
    cells = np.arange(shape[0] * shape[1]).reshape((*shape[:2], 1)) * shape[2] + classes % shape[2]
    first = np.full(int(np.prod(shape)), np.nan)
    first[cells[:, :, ::-1].ravel()] = scores[:, :, ::-1].ravel()  # backwards, so that the first of each class is kept
    first = first.reshape(shape)[:, :, :-1]
    heads, cast = np.zeros(shape), np.zeros(shape)
    graded = np.zeros(shape[:2], dtype=bool)
    spent, longest = np.zeros(shape[:2]), np.zeros(shape[:2])
    for start, stop in zip((0, *ks), ks, strict=False):
        new = cells[:, :, start:stop].ravel()
        heads += np.bincount(new, minlength=heads.size).reshape(shape)
        if weights is not None:
            weighed = np.bincount(new, weights=weights[:, :, start:stop].ravel(), minlength=cast.size)
            cast += weighed.reshape(shape)
        if stop > start:
            graded |= np.isfinite(scores[:, :, start:stop]).any(axis=2)
            spent += tokens[:, :, start:stop].sum(axis=2)
            longest = np.maximum(longest, tokens[:, :, start:stop].max(axis=2))
        total = heads[:, :, :-1] if weights is None else cast[:, :, :-1]
        there = heads[:, :, :-1] > 0
        wins = there & (total >= TIE * total.max(axis=2, keepdims=True, initial=0))
        tied = wins.sum(axis=2)
        score = np.where(wins, first, 0.0).sum(axis=2) / np.maximum(tied, 1)
        yield np.where(tied > 0, score, np.where(graded, 0.0, np.nan)), spent.copy(), longest
