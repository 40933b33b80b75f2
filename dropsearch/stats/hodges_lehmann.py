"""Hodges-Lehmann estimate and 95 % interval of a paired difference, from the exact Wilcoxon signed-rank test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from dropsearch.core.records import Interval
from dropsearch.stats.intervals import LEVEL
from dropsearch.stats.paired_tests import TIE, signed_rank_p

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
    for average, shift in _shifts(averages):
        if signed_rank_p(differences - shift, rounding) >= 1 - LEVEL:
            return float(average)
    return float(averages[-1])


def _shifts(averages: Array) -> Iterable[tuple[float, float]]:
    """Yield each average with the shifts to test: the average itself, and the middle between it and the next."""
    for average, following in zip(averages, [*averages[1:], averages[-1]], strict=True):
        yield average, average
        yield average, (average + following) / 2
