"""Power of the exact signed-rank test of paired seeds."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

DRAWS = 4000
"""Number of simulated experiments, with fixed random numbers, so that results are deterministic."""


@cache
def smallest_rank_sum(pairs: int, alpha: float) -> int | None:
    """Return the smallest sum of positive ranks at which a two-sided exact test rejects, or None."""
    most = pairs * (pairs + 1) // 2
    ways = np.zeros(most + 1)
    ways[0] = 1
    for rank in range(1, pairs + 1):
        ways[rank:] += ways[:-rank].copy()
    tail = np.cumsum(ways[::-1])[::-1] / 2.0**pairs
    rejecting = np.flatnonzero(2 * tail <= alpha)
    return int(rejecting[0]) if len(rejecting) else None


@cache
def detectable(pairs: int, contrasts: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest detectable difference, in standard deviations of the paired differences.

    Differences are assumed normal. The level of a contrast is `alpha` divided by `contrasts`, the first step of Holm's
    procedure, so the power with several true differences is at least `power`.

    Returns:
        The difference; infinite if there are too few seeds.
    """
    bound = smallest_rank_sum(pairs, alpha / max(contrasts, 1))
    if bound is None:
        return math.inf
    noise = np.random.default_rng(0).standard_normal((DRAWS, pairs))
    low, high = 0.0, 32.0
    for _ in range(30):
        middle = (low + high) / 2
        shifted = noise + middle
        ranks = np.abs(shifted).argsort(axis=1).argsort(axis=1) + 1
        rejected = ((ranks * (shifted > 0)).sum(axis=1) >= bound).mean()
        low, high = (low, middle) if rejected >= power else (middle, high)
    return high
