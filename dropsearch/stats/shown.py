"""When a difference is shown, and how many seeds or how large a difference that takes."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import numpy as np

from dropsearch.core.records import Comparison

SIGNIFICANT = 0.05
"""A difference is shown only if its p-value after Holm's adjustment is below this."""


def shown_side(found: Comparison) -> Literal[-1, 0, 1]:
    """Return the side of zero on which a difference is shown to lie: -1, 1, or 0 if it is not shown.

    A difference is shown if p after Holm is below 0.05, its interval excludes zero, and `missing` is empty.
    """
    low, high = found.difference.low, found.difference.high
    if found.p_holm < SIGNIFICANT and not found.missing and (low > 0 or high < 0):
        return 1 if low > 0 else -1
    return 0


def p_text(value: float) -> str:
    """Return a p-value with two digits, or more if rounding would move it across the significance level."""
    if value < 0.001:
        return "<0.001"
    texts = (f"{value:.{digits}g}" for digits in range(2, 18))
    return next(text for text in texts if (float(text) < SIGNIFICANT) is (value < SIGNIFICANT))


def minimum_seeds(contrasts: int, level: float = SIGNIFICANT) -> int:
    """Return the minimum number of paired seeds with which one of `contrasts` can be significant after Holm.

    The smallest exact Wilcoxon p with n pairs is 2 / 2^n.

    Raises:
        ValueError: `contrasts` is below 1, or `level` is not in (0, 1).
    """
    if contrasts < 1 or not 0 < level < 1:
        raise ValueError(f"contrasts >= 1 and 0 < level < 1 must hold, got {contrasts} and {level}")
    seeds = 1
    while contrasts * 2.0 ** (1 - seeds) >= level:
        seeds += 1
    return seeds


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
