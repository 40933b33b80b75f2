"""Means and 95 % intervals over seeds, for scores and for curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dropsearch.core.records import Interval, Series, TrialResult
from dropsearch.stats import means

FEWEST_FOR_INTERVAL = 3
"""With two curves Student's interval is wider than any axis: their range is shown instead."""


@dataclass(frozen=True)
class Band:
    """A curve with a band around it, each [points]."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def finite(values: Sequence[float]) -> list[float]:
    """The values that are numbers."""
    return [float(value) for value in values if math.isfinite(value)]


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of the finite `values` and its 95 % interval by Student's t; one value has NaN for bounds."""
    return means.mean_interval(finite(values))


def shown_interval(values: Sequence[float]) -> Interval:
    """What is drawn around a mean: its 95 % interval, or the range of fewer than three finite `values`."""
    known = finite(values)
    if 0 < len(known) < FEWEST_FOR_INTERVAL:
        return Interval(sum(known) / len(known), min(known), max(known))
    return means.mean_interval(known)


def curve_band(results: Sequence[TrialResult], metric: str) -> Band:
    """Mean of a metric by epoch over `results`, with its 95 % interval, or its range with fewer than three.

    An epoch is averaged over the trials that reached it with a finite value, and NaN where none did.
    """
    epochs = max((point.epoch for result in results for point in result.curve), default=-1) + 1
    columns: list[list[float]] = [[] for _ in range(epochs)]
    for result in results:
        for point in result.curve:
            columns[point.epoch].append(getattr(point, metric))
    return _band(columns)


def series_band(series: Series) -> Band:
    """Mean of a series by point over its seeds, with its 95 % interval, or its range with fewer than three."""
    return _band([[curve[place] for curve in series.values if place < len(curve)] for place in range(len(series.x))])


def _band(columns: Sequence[Sequence[float]]) -> Band:
    drawn = [shown_interval(column) for column in columns]
    rows = np.array([(interval.mean, interval.low, interval.high) for interval in drawn]).reshape(len(columns), 3)
    return Band(rows[:, 0], rows[:, 1], rows[:, 2])
