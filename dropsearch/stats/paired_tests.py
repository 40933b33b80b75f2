"""Exact p-values for few pairs, and their adjustment for multiple contrasts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

TIE = 1e-9
"""Differences whose sizes agree to this share of the largest are ties, such as 0.9 - 0.8 and 0.8 - 0.7."""


def wilcoxon_exact(differences: Sequence[float]) -> float:
    """Return the exact two-sided p of Wilcoxon's signed-rank test, with ties and zeros (Wilcoxon 1945).

    Zeros are dropped and ties get their mean rank. The null distribution covers all 2^n signs of the actual ranks, so
    it is exact also with ties, unlike tables and scipy's ``method="exact"``. A difference below `TIE` times the largest
    counts as zero. Without nonzero differences p is 1.

    Raises:
        ValueError: A difference is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("differences must be finite: leave out the other pairs")
    return signed_rank_p(values, TIE * float(np.abs(values).max(initial=0.0)))


def signed_rank_p(values: NDArray[np.float64], rounding: float) -> float:
    """Return the p of `wilcoxon_exact` for finite values; sizes within `rounding` of each other are ties."""
    values = values[np.abs(values) > rounding]
    if values.size == 0:
        return 1.0
    ranks = _doubled_ranks(np.abs(values), rounding)
    positive, total = int(ranks[values > 0].sum()), int(ranks.sum())
    return min(1.0, 2 * float(_tails(tuple(sorted(ranks.tolist())))[min(positive, total - positive)]))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (1979) in the given order.

    Comparing them with 0.05 controls the family-wise error at 0.05 under any dependence.

    Raises:
        ValueError: A p-value is not in [0, 1].
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
    """Return twice the mean ranks, which are integers."""
    ordered = np.sort(sizes)
    group = np.concatenate([[0], np.cumsum(np.diff(ordered) > rounding)])
    counts = np.bincount(group)
    doubled = 2 * np.cumsum(counts) - counts + 1
    return doubled[group[np.searchsorted(ordered, sizes)]]


@lru_cache(maxsize=256)
def _tails(ranks: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the probability that the sum of positive doubled ranks is at most 0, 1, 2, ..., for random signs."""
    probability = np.zeros(sum(ranks) + 1)
    probability[0] = 1.0
    for rank in ranks:
        shifted = np.zeros_like(probability)
        shifted[rank:] = probability[: probability.size - rank]
        probability = (probability + shifted) / 2
    return np.cumsum(probability)


def superiority(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the probability that a random value of `a` `[n]` exceeds one of `b` `[m]`, with ties counted half.

    This is Vargha and Delaney's A (2000), the share of all n times m pairs in which `a` is larger. It describes
    training each arm once with unrelated seeds, so it ignores the pairing. 0.5 means no difference; 1 means that every
    value of `a` exceeds every value of `b`. NaN if either is empty.
    """
    if not a or not b:
        return math.nan
    ordered = np.sort(b)
    below, not_above = (np.searchsorted(ordered, a, side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(b)))
