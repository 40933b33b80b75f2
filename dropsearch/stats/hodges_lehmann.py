"""The estimate and the 95 % interval of a paired difference that belong to the exact Wilcoxon signed-rank test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from dropsearch.core.records import Interval
from dropsearch.stats.intervals import LEVEL
from dropsearch.stats.paired_tests import TIE, signed_rank_p

FEWEST_PAIRS = 6
"""With fewer pairs the exact test can reject nothing at 5 %, so that no 95 % interval exists: 2 / 2^5 > 0.05."""

Array = NDArray[np.float64]


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Estimate ``a - b`` [n], pair by pair, with its exact 95 % interval (Hodges and Lehmann 1963).

    The estimate is the median of the Walsh averages, that is of the means of all pairs of differences, each with
    itself included. The interval holds every shift that `wilcoxon_exact` does not reject at 5 %, ties and zeros
    treated as the test treats them. So it never leaves the range of the differences, and where p is at least 0.05
    it holds zero.

    Returns:
        The estimate and its interval; NaN for the bounds with fewer than six pairs, for all three numbers where a
        value is not finite or there is none.

    Raises:
        ValueError: `a` and `b` differ in length.
    """
    if len(a) != len(b):
        raise ValueError(f"paired values must be as many, got {len(a)} and {len(b)}")
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
    """Return the means of all pairs of `differences` [n], each with itself included, in order [n * (n + 1) / 2]."""
    rows, columns = np.triu_indices(differences.size)
    # A difference has itself for its average, without a rounding error.
    averages = differences[rows] + (differences[columns] - differences[rows]) / 2
    return np.sort(averages)


def _distinct(ordered: Array, rounding: float) -> Array:
    """Return ordered values without those that equal their neighbour but for rounding."""
    return ordered[np.concatenate([[True], np.diff(ordered) > rounding])]


def _first_kept(differences: Array, averages: Array, rounding: float) -> float:
    """Return the first of the Walsh averages at which, or right behind which, the test rejects no more.

    The test's p changes at Walsh averages only: there, where a difference or two change sign or tie, and between.
    """
    for average, shift in _shifts(averages):
        if signed_rank_p(differences - shift, rounding) >= 1 - LEVEL:
            return float(average)
    return float(averages[-1])


def _shifts(averages: Array) -> Iterable[tuple[float, float]]:
    """Yield each average with a shift to test: the average itself, then the middle between it and the next."""
    for average, following in zip(averages, [*averages[1:], averages[-1]], strict=True):
        yield average, average
        yield average, (average + following) / 2
