"""Token confidence (DeepConf, arXiv 2508.15260, equation 2), rounded alike by every backend."""

from __future__ import annotations

import math
from collections.abc import Sequence


def confidence(likeliest: Sequence[float]) -> float:
    """Minus the mean log-probability of the likeliest tokens in one place; 4 decimals, as it is stored for each token.

    0 or more: what an engine's rounding makes of a certain token may be a little above log 1.
    """
    return max(0.0, round(-math.fsum(likeliest) / len(likeliest), 4))
