"""Measures of dropout's effects on a trained network, one per file.

Every file defines `measure(trained) -> Measured` for one retraining of an arm's winner, and describes its numbers and
curves in `VALUES` and `SERIES`. `dropsearch.experiment` collects the results of several models;
`dropsearch.stats.comparisons` tests differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dropsearch.analysis.measures import coadaptation, ensemble, overfitting, robustness, variance_shift
from dropsearch.analysis.measures.protocol import Measured
from dropsearch.core.records import Quantity


@dataclass(frozen=True)
class Measure:
    """A measure and the description of its results."""

    measure: Callable[[Any], Measured]
    """Takes a `TrainedModel`, or a `TrialResult` if `of_curve`."""
    values: Mapping[str, Quantity]
    """Its numbers by name."""
    series: Mapping[str, Quantity]
    """Its curves by name."""
    of_curve: bool = False
    """Whether the measure needs only the learning curve and no model."""


MEASURES: Mapping[str, Measure] = {
    "overfitting": Measure(overfitting.measure, overfitting.VALUES, overfitting.SERIES, of_curve=True),
    "coadaptation": Measure(coadaptation.measure, coadaptation.VALUES, coadaptation.SERIES),
    "robustness": Measure(robustness.measure, robustness.VALUES, robustness.SERIES),
    "ensemble": Measure(ensemble.measure, ensemble.VALUES, ensemble.SERIES),
    "variance shift": Measure(variance_shift.measure, variance_shift.VALUES, variance_shift.SERIES),
}
"""All measures. To add one, write its file and list it here."""
