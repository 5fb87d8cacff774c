"""Votes over equivalence classes of answers (self-consistency, arXiv 2203.11171, section 2)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence


def winners(classes: Sequence[int | None], weights: Sequence[float] | None = None) -> list[int]:
    """Places of the first answer of each class with the largest weight: several if the vote ties, none without votes.

    classes: each answer's class, None if it is invalid and has no vote. weights: each answer's weight, 0 or more; None
    gives every answer one vote. Sums that differ only by rounding tie, so the order of the answers does not matter.
    Raises ValueError for a weight that is negative or not finite.
    """
    heads = [1.0] * len(classes) if weights is None else weights
    if bad := [weight for weight in heads if not (math.isfinite(weight) and weight >= 0)]:
        raise ValueError(f"a vote weighs {bad[0]}; weights must be finite and 0 or more")
    cast: defaultdict[int, list[float]] = defaultdict(list)
    for name, weight in zip(classes, heads, strict=True):
        if name is not None:
            cast[name].append(weight)
    totals = {name: math.fsum(votes) for name, votes in cast.items()}
    most = max(totals.values(), default=0.0)
    return [classes.index(name) for name, total in totals.items() if math.isclose(total, most, rel_tol=1e-9)]
