"""Exact p-values for few pairs, and their adjustment for several contrasts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

TIE = 1e-9
"""Differences whose sizes agree to this share of the largest are ties, as 0.9 - 0.8 and 0.8 - 0.7 are."""


def wilcoxon_exact(differences: Sequence[float]) -> float:
    """Exact two-sided p of Wilcoxon's signed-rank test, with ties and zeros (Wilcoxon 1945).

    Zeros are left out and ties share their mean rank; the null distribution is that of all 2^n signs of the
    ranks that are really there, built rank by rank, so it is exact where tables and ``method="exact"`` of
    scipy assume that there are no ties. A difference that is smaller than `TIE` times the largest is a zero.
    No differences, or only zeros, give 1.

    Raises:
        ValueError: A difference is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("differences must be finite; leave the other pairs out")
    return signed_rank_p(values, TIE * float(np.abs(values).max(initial=0.0)))


def signed_rank_p(values: NDArray[np.float64], rounding: float) -> float:
    """Return the p of `wilcoxon_exact` for finite values, where sizes within `rounding` of each other are ties."""
    values = values[np.abs(values) > rounding]
    if values.size == 0:
        return 1.0
    ranks = _doubled_ranks(np.abs(values), rounding)
    positive, total = int(ranks[values > 0].sum()), int(ranks.sum())
    return min(1.0, 2 * float(_tails(tuple(sorted(ranks.tolist())))[min(positive, total - positive)]))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given.

    Comparing them with 0.05 keeps the family-wise error at 0.05, whatever the contrasts have in common.
    Raises ValueError where a p-value is not in [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def _doubled_ranks(sizes: NDArray[np.float64], rounding: float) -> NDArray[np.int64]:
    """Twice the mean ranks, so that they are integers."""
    ordered = np.sort(sizes)
    group = np.concatenate([[0], np.cumsum(np.diff(ordered) > rounding)])
    counts = np.bincount(group)
    doubled = 2 * np.cumsum(counts) - counts + 1
    return doubled[group[np.searchsorted(ordered, sizes)]]


@lru_cache(maxsize=256)
def _tails(ranks: tuple[int, ...]) -> NDArray[np.float64]:
    """Probability that the sum of the positive (doubled) ranks is at most 0, 1, 2, ..., each sign a fair coin."""
    probability = np.zeros(sum(ranks) + 1)
    probability[0] = 1.0
    for rank in ranks:
        shifted = np.zeros_like(probability)
        shifted[rank:] = probability[: probability.size - rank]
        probability = (probability + shifted) / 2
    return np.cumsum(probability)


def superiority(a: Sequence[float], b: Sequence[float]) -> float:
    """Probability that a random value of `a` [n] exceeds a random value of `b` [m], ties counted half.

    Vargha and Delaney's A (2000): the share of all n times m couples in which the one of `a` is the greater. It asks
    what happens to somebody who trains each arm once, on seeds that have nothing to do with each other; that the seeds
    of two arms pair up is of use to the interval and the test, and not to him. 0.5 is no difference, 1 that every seed
    of `a` lies above every seed of `b`. NaN where either is empty.
    """
    if not a or not b:
        return math.nan
    ordered = np.sort(b)
    below, not_above = (np.searchsorted(ordered, a, side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(b)))
