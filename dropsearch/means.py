"""A mean of few values and how sure it is: what the statistics and the report share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from dropsearch.records import Interval

LEVEL = 0.95
"""Of every interval that is computed or shown."""


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
