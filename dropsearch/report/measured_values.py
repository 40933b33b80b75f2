"""Means and 95 % intervals over seeds, of scores and curves, and of what was measured on the winners by arm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dropsearch.core.records import Evidence, Interval, Quantity, Series, Summary, TrialResult
from dropsearch.stats.intervals import mean_interval as student_interval

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
    return student_interval(finite(values))


def shown_interval(values: Sequence[float]) -> Interval:
    """What is drawn around a mean: its 95 % interval, or the range of fewer than three finite `values`."""
    known = finite(values)
    if 0 < len(known) < FEWEST_FOR_INTERVAL:
        return Interval(sum(known) / len(known), min(known), max(known))
    return student_interval(known)


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


def values(summary: Summary, name: str) -> dict[str, tuple[float, ...]]:
    """A measure by arm, one finite number a seed; only arms that have one."""
    if summary.evidence is None:
        return {}
    arms = summary.evidence.arms
    known = {arm: tuple(finite(arms[arm].measures.get(name, ()))) for arm in summary.arms if arm in arms}
    return {arm: numbers for arm, numbers in known.items() if numbers}


def means(summary: Summary, name: str) -> dict[str, Interval]:
    """Mean of a measure by arm over the seeds that have it, with its 95 % interval."""
    return {arm: mean_interval(numbers) for arm, numbers in values(summary, name).items()}


def bands(summary: Summary, name: str) -> dict[str, tuple[tuple[float, ...], Band]]:
    """A series by arm: its x, and its mean over the seeds with a band; only arms with a finite point."""
    if summary.evidence is None:
        return {}
    arms = summary.evidence.arms
    known = {arm: arms[arm].series[name] for arm in summary.arms if arm in arms and name in arms[arm].series}
    drawn = {arm: (series.x, series_band(series)) for arm, series in known.items() if _is_drawable(series)}
    return {arm: band for arm, band in drawn.items() if np.isfinite(band[1].mean).any()}


def seeds(summary: Summary) -> int:
    """The fewest seeds that an arm was measured on; 0 where none was."""
    arms = summary.evidence.arms.values() if summary.evidence else ()
    return min((len(arm.seeds) for arm in arms), default=0)


def quantity(evidence: Evidence, name: str) -> Quantity:
    """What a measure is; where nobody said, its name in words."""
    return evidence.quantities.get(name, Quantity(name.replace("_", " ")))


def titled(found: Quantity) -> str:
    """Its label, with the unit where it has one."""
    return f"{found.label} ({found.unit})" if found.unit else found.label


def measures(evidence: Evidence) -> list[str]:
    """The names of all measures that at least one model has, in the order in which they were measured."""
    names = dict.fromkeys(name for arm in evidence.arms.values() for name in arm.measures)
    return [name for name in names if any(finite(arm.measures.get(name, ())) for arm in evidence.arms.values())]


def _is_drawable(series: Series) -> bool:
    return bool(series.x) and bool(series.values)
