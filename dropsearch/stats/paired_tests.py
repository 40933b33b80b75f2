"""Exact tests of few pairs and the intervals that follow from them, and the adjustment for multiple contrasts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dropsearch.core.records import Interval
from dropsearch.stats.intervals import LEVEL

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


FEWEST_PAIRS = 6
"""Minimum number of pairs for a 95 % interval: with five pairs, the exact p is at least 2 / 2^5 > 0.05."""

Array = NDArray[np.float64]


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Estimate the paired difference ``a - b`` of values `[n]`, with its exact 95 % interval (Hodges and Lehmann 1963).

    The estimate is the median of the Walsh averages, the means of all pairs of differences including each with itself.
    The interval contains every shift that `wilcoxon_exact` does not reject at 5 %, with the same treatment of ties and
    zeros. It therefore stays within the range of the differences, and contains zero if p is at least 0.05.

    Returns:
        The estimate and its interval; bounds are NaN with fewer than six pairs, and all three numbers are NaN if a
        value is not finite or there are none.

    Raises:
        ValueError: `a` and `b` differ in length.
    """
    if len(a) != len(b):
        raise ValueError(f"paired values must have the same number, got {len(a)} and {len(b)}")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if differences.size == 0 or not np.isfinite(differences).all():
        return Interval(math.nan, math.nan, math.nan)
    averages = walsh_averages(differences)
    estimate = float(np.median(averages))
    if differences.size < FEWEST_PAIRS:
        return Interval(estimate, math.nan, math.nan)
    rounding = TIE * float(np.abs(differences).max())
    apart = _distinct(averages, rounding)
    low = _first_kept(differences, apart, rounding)
    high = _first_kept(differences, apart[::-1], rounding)
    return Interval(estimate, min(low, estimate), max(high, estimate))


def walsh_averages(differences: Array) -> Array:
    """Return the sorted means of all pairs of `differences` `[n]`, including each with itself, `[n * (n + 1) / 2]`."""
    rows, columns = np.triu_indices(differences.size)
    # The average of a difference with itself is set exactly, without rounding.
    averages = differences[rows] + (differences[columns] - differences[rows]) / 2
    return np.sort(averages)


def _distinct(ordered: Array, rounding: float) -> Array:
    """Return sorted values without those that equal their neighbor up to rounding."""
    return ordered[np.concatenate([[True], np.diff(ordered) > rounding])]


def _first_kept(differences: Array, averages: Array, rounding: float) -> float:
    """Return the first Walsh average at which, or directly after which, the test does not reject.

    The test's p changes only at Walsh averages, where differences change sign or tie.
    """
    tests = ((average, signed_rank_p(differences - shift, rounding)) for average, shift in _shifts(averages))
    return next(float(average) for average, p in tests if p >= 1 - LEVEL)  # at their median p is about 1


def _shifts(averages: Array) -> Iterable[tuple[float, float]]:
    """Yield each average with the shifts to test: the average itself, and the middle between it and the next."""
    for average, following in zip(averages, [*averages[1:], averages[-1]], strict=True):
        yield average, average
        yield average, (average + following) / 2
