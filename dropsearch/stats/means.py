"""A mean of few values, how sure it is, and when a difference is shown: what the statistics and the report share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from dropsearch.core.records import Interval

LEVEL = 0.95
"""Of every interval that is computed or shown."""


SIGNIFICANT = 0.05
"""The p-value after Holm's adjustment below which a difference is told from chance."""


class Contrast(Protocol):
    """A difference with all that decides whether it is shown."""

    @property
    def difference(self) -> Interval:
        """With its 95 % interval."""
        ...

    @property
    def p_holm(self) -> float:
        """Of the test, adjusted for all contrasts of its family."""
        ...

    @property
    def missing(self) -> tuple[str, ...]:
        """Luck that interval and p leave out."""
        ...


def shown_side(found: Contrast) -> Literal[-1, 0, 1]:
    """Return on which side of zero a difference is shown to lie, 0 where on neither.

    Shown is what has p after Holm below 0.05 and zero outside its interval, where the interval covers all luck. No
    other place decides it.
    """
    low, high = found.difference.low, found.difference.high
    if found.p_holm < SIGNIFICANT and not found.missing and (low > 0 or high < 0):
        return 1 if low > 0 else -1
    return 0


def minimum_seeds(contrasts: int, level: float = SIGNIFICANT) -> int:
    """The fewest paired seeds with which one of `contrasts` comparisons can fall below `level` after Holm.

    With n pairs that all point the same way the exact Wilcoxon p is 2 / 2^n; nothing smaller is possible.
    Raises ValueError unless `contrasts` is at least 1 and `level` lies in (0, 1).
    """
    if contrasts < 1 or not 0 < level < 1:
        raise ValueError(f"contrasts >= 1 and 0 < level < 1 must hold, got {contrasts} and {level}")
    seeds = 1
    while contrasts * 2.0 ** (1 - seeds) >= level:
        seeds += 1
    return seeds


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of `values` [n] and its 95 % interval by Student's t.

    One value has no interval: both bounds are NaN. So are all three numbers where any value is not finite or
    there is none.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0 or not np.isfinite(sample).all():
        return Interval(math.nan, math.nan, math.nan)
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, math.nan, math.nan)
    half = float(stdtrit(sample.size - 1, (1 + LEVEL) / 2)) * _standard_error(sample)
    return Interval(mean, mean - half, mean + half)


def _standard_error(sample: NDArray[np.float64]) -> float:
    # Equal values can have a mean that is off by a rounding error; their spread is exactly zero all the same.
    return 0.0 if np.ptp(sample) == 0 else float(sample.std(ddof=1)) / math.sqrt(sample.size)
