"""What was measured on the winners, as tables and figures want it: by arm, in the order in which arms ran."""

from __future__ import annotations

import numpy as np

from dropsearch.core.records import Evidence, Interval, Quantity, Series, Summary
from dropsearch.report.bands import Band, finite, mean_interval, series_band


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
