"""What dropout does to a trained network, one phenomenon a file.

Every file has the same face: `measure(trained) -> Measured`, for one retraining of an arm's winner, `VALUES`
and `SERIES`, which say what its numbers and curves are. What comes of several models is put together by
`dropsearch.experiment`; how sure a difference is, is told by `dropsearch.stats.comparisons`.
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
    """A phenomenon, and how it is measured."""

    measure: Callable[[Any], Measured]
    """Of a `TrainedModel`; where `of_curve`, of anything with a curve."""
    values: Mapping[str, Quantity]
    """What its numbers are, by name."""
    series: Mapping[str, Quantity]
    """What its curves are, by name."""
    of_curve: bool = False
    """Whether the curve of the training is enough, and the model is not looked at."""


MEASURES: Mapping[str, Measure] = {
    "overfitting": Measure(overfitting.measure, overfitting.VALUES, overfitting.SERIES, of_curve=True),
    "coadaptation": Measure(coadaptation.measure, coadaptation.VALUES, coadaptation.SERIES),
    "robustness": Measure(robustness.measure, robustness.VALUES, robustness.SERIES),
    "ensemble": Measure(ensemble.measure, ensemble.VALUES, ensemble.SERIES),
    "variance shift": Measure(variance_shift.measure, variance_shift.VALUES, variance_shift.SERIES),
}
"""Everything that is measured: to add a measure, write its file and name it here."""
