"""Means and 95 % intervals over seeds of scores, curves and measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dropsearch.core.records import Evidence, Interval, Series, Summary, TrialResult
from dropsearch.stats.intervals import mean_interval as student_interval

FEWEST_FOR_INTERVAL = 3
"""Minimum number of curves for Student's interval; with two, their range is shown instead."""


@dataclass(frozen=True)
class Band:
    """A curve with a band, `[points]` each."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def finite(values: Sequence[float]) -> list[float]:
    """Return the finite values."""
    return [float(value) for value in values if math.isfinite(value)]


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of the finite `values` and its 95 % interval by Student's t; bounds are NaN below three values.

    With two values, Student's interval is 13 times as long as their range and says nothing.
    """
    known = finite(values)
    found = student_interval(known)
    return found if len(known) >= FEWEST_FOR_INTERVAL else Interval(found.mean, math.nan, math.nan)


def shown_interval(values: Sequence[float]) -> Interval:
    """Return the interval to draw around a mean: the 95 % interval, or the range of fewer than three values."""
    known = finite(values)
    if 0 < len(known) < FEWEST_FOR_INTERVAL:
        return Interval(sum(known) / len(known), min(known), max(known))
    return student_interval(known)


def curve_band(results: Sequence[TrialResult], metric: str) -> Band:
    """Return the mean of a metric by epoch over `results`, with its 95 % interval, or its range with fewer than three.

    An epoch is averaged over the trials with a finite value; NaN if there are none.
    """
    epochs = max((point.epoch for result in results for point in result.curve), default=-1) + 1
    columns: list[list[float]] = [[] for _ in range(epochs)]
    for result in results:
        for point in result.curve:
            columns[point.epoch].append(getattr(point, metric))
    return _band(columns)


def series_band(series: Series) -> Band:
    """Return the mean of a series over its seeds, with its 95 % interval, or its range with fewer than three."""
    return _band([[curve[place] for curve in series.values if place < len(curve)] for place in range(len(series.x))])


def _band(columns: Sequence[Sequence[float]]) -> Band:
    drawn = [shown_interval(column) for column in columns]
    rows = np.array([(interval.mean, interval.low, interval.high) for interval in drawn]).reshape(len(columns), 3)
    return Band(rows[:, 0], rows[:, 1], rows[:, 2])


def values(summary: Summary, name: str) -> dict[str, tuple[float, ...]]:
    """Return the finite values of a measure by arm, one per seed; only arms with values."""
    if summary.evidence is None:
        return {}
    arms = summary.evidence.arms
    known = {arm: tuple(finite(arms[arm].measures.get(name, ()))) for arm in summary.arms if arm in arms}
    return {arm: numbers for arm, numbers in known.items() if numbers}


def means(summary: Summary, name: str) -> dict[str, Interval]:
    """Return the mean of a measure by arm over finite seeds, with its 95 % interval."""
    return {arm: mean_interval(numbers) for arm, numbers in values(summary, name).items()}


def bands(summary: Summary, name: str) -> dict[str, tuple[tuple[float, ...], Band]]:
    """Return the x values and the band of a series by arm; only arms with a finite point."""
    if summary.evidence is None:
        return {}
    arms = summary.evidence.arms
    known = {arm: arms[arm].series[name] for arm in summary.arms if arm in arms and name in arms[arm].series}
    drawn = {arm: (series.x, series_band(series)) for arm, series in known.items() if _is_drawable(series)}
    return {arm: band for arm, band in drawn.items() if np.isfinite(band[1].mean).any()}


def seeds(summary: Summary) -> int:
    """Return the smallest number of seeds of a measured arm; 0 without any."""
    arms = summary.evidence.arms.values() if summary.evidence else ()
    return min((len(arm.seeds) for arm in arms), default=0)


def measures(evidence: Evidence) -> list[str]:
    """Return the names of all measures with a value for at least one model, in the order of measurement."""
    names = dict.fromkeys(name for arm in evidence.arms.values() for name in arm.measures)
    return [name for name in names if any(finite(arm.measures.get(name, ())) for arm in evidence.arms.values())]


def _is_drawable(series: Series) -> bool:
    return bool(series.x) and bool(series.values)
