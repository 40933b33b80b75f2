"""95 % intervals of means of few values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from dropsearch.core.records import Interval

LEVEL = 0.95
"""Level of all intervals."""
Array = NDArray[np.float64]


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of `values` [n] and its 95 % interval by Student's t.

    With one value both bounds are NaN. All three numbers are NaN without values or if a value is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0 or not np.isfinite(sample).all():
        return Interval(math.nan, math.nan, math.nan)
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, math.nan, math.nan)
    half = float(stdtrit(sample.size - 1, (1 + LEVEL) / 2)) * _standard_error(sample)
    return Interval(mean, mean - half, mean + half)


def _standard_error(sample: Array) -> float:
    # The mean of equal values may have a rounding error, but their deviation is exactly zero.
    return 0.0 if np.ptp(sample) == 0 else float(sample.std(ddof=1)) / math.sqrt(sample.size)
