"""Overfitting: by how much the validation loss exceeds the train loss, both with dropout off."""

from __future__ import annotations

import math
from typing import Protocol

from dropsearch.analysis.measures.protocol import Measured, NotMeasuredError
from dropsearch.core.records import EpochMetrics, Quantity

VALUES = {
    "gap_best": Quantity("gap at the best epoch", "nats", higher_is_better=False),
    "gap_last": Quantity("gap at the last epoch", "nats", higher_is_better=False),
    "val_loss_best": Quantity("validation loss at the best epoch", "nats", higher_is_better=False),
}
SERIES = {"gap": Quantity("validation loss minus train loss", "nats", higher_is_better=False)}

ROUNDING = 1e-6
"""Share of a loss by which two means over the same examples may differ in float32."""


class Curve(Protocol):
    """A training that was watched, such as a `TrialResult`."""

    @property
    def curve(self) -> tuple[EpochMetrics, ...]:
        """Its epochs, in order."""
        ...

    @property
    def best(self) -> EpochMetrics | None:
        """The epoch whose weights were kept."""
        ...


def measure(trained: Curve) -> Measured:
    """Measure the generalisation gap, validation loss minus train loss, in nats.

    Both losses are means over as many examples, with dropout off and the weights at the end of the epoch. The loss
    as trained would not do: dropout makes it larger, so that the gap would shrink with the rate and not with the
    overfitting. Values `gap_best` (at the epoch whose weights were kept) and `gap_last` (at the last one), and
    `val_loss_best`, for a network that has learnt nothing has no gap either; series `gap` by epoch, counted from 1.

    Raises:
        NotMeasuredError: A loss is missing, or both agree to rounding at every epoch, as on the same examples.
    """
    _check(trained.curve)
    gaps = [_gap(point) for point in trained.curve]
    epochs = [point.epoch + 1 for point in trained.curve]
    values = {
        "gap_best": _gap(trained.best) if trained.best else math.nan,
        "gap_last": gaps[-1] if gaps else math.nan,
        "val_loss_best": trained.best.val_loss if trained.best else math.nan,
    }
    return Measured(values, {"gap": (epochs, gaps)})


def _check(curve: tuple[EpochMetrics, ...]) -> None:
    if curve and all(math.isnan(point.val_loss) for point in curve):
        raise NotMeasuredError("the module logs no validation loss")
    if curve and all(math.isnan(point.train_loss) for point in curve):
        raise NotMeasuredError("its validation step gives no loss on a part of the training set")
    known = [point for point in curve if math.isfinite(_gap(point))]
    if known and all(abs(_gap(point)) <= ROUNDING * max(abs(point.val_loss), abs(point.train_loss)) for point in known):
        raise NotMeasuredError("train and validation loss agree to rounding at every epoch, as on the same examples")


def _gap(point: EpochMetrics) -> float:
    return point.val_loss - point.train_loss
