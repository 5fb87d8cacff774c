"""Token confidence (DeepConf, arXiv 2508.15260, equation 2), rounded in the same way by every backend."""

from __future__ import annotations

import math
from collections.abc import Sequence


def confidence(likeliest: Sequence[float]) -> float:
    """Minus the mean log-probability of the likeliest tokens at one place; 4 decimals, as stored for each token.

    Never negative: an engine's rounding may put the log-probability of a certain token a little above 0.
    """
    return max(0.0, round(-math.fsum(likeliest) / len(likeliest), 4))
