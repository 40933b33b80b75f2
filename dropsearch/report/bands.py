"""Means and 95 % intervals over seeds, for scores and for curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from dropsearch.records import Interval, TrialResult

FEWEST_FOR_INTERVAL = 3
"""With two curves Student's interval is wider than any axis: their range is shown instead."""


@dataclass(frozen=True)
class Band:
    """A curve over epochs with a band around it, each [epochs]."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def finite(values: Sequence[float]) -> list[float]:
    """The values that are numbers."""
    return [float(value) for value in values if math.isfinite(value)]


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of the finite `values` and its 95 % interval by Student's t; one value has NaN for bounds."""
    sample = finite(values)
    if not sample:
        return Interval(math.nan, math.nan, math.nan)
    mean = sum(sample) / len(sample)
    if len(sample) == 1:
        return Interval(mean, math.nan, math.nan)
    half = _half_width(np.asarray(sample))
    return Interval(mean, mean - half, mean + half)


def curve_band(results: Sequence[TrialResult], metric: str) -> Band:
    """Mean of a metric by epoch over `results`, with its 95 % interval, or its range with fewer than three.

    An epoch is averaged over the trials that reached it with a finite value, and NaN where none did.
    """
    epochs = max((point.epoch for result in results for point in result.curve), default=-1) + 1
    columns: list[list[float]] = [[] for _ in range(epochs)]
    for result in results:
        for point in result.curve:
            columns[point.epoch].extend(finite([getattr(point, metric)]))
    rows = np.array([_mean_low_high(column) for column in columns]).reshape(epochs, 3)
    return Band(rows[:, 0], rows[:, 1], rows[:, 2])


def _mean_low_high(values: list[float]) -> tuple[float, float, float]:
    if 0 < len(values) < FEWEST_FOR_INTERVAL:
        return sum(values) / len(values), min(values), max(values)
    interval = mean_interval(values)
    return interval.mean, interval.low, interval.high


def _half_width(sample: NDArray[np.float64]) -> float:
    if np.ptp(sample) == 0:
        return 0.0
    return float(stdtrit(sample.size - 1, 0.975) * sample.std(ddof=1) / math.sqrt(sample.size))
