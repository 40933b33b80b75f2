"""Overfitting: validation loss minus train loss, both with dropout off."""

from __future__ import annotations

import math

from dropsearch.analysis.measures.protocol import Measured, NotMeasuredError
from dropsearch.core.records import EpochMetrics, Quantity, TrialResult

LOSS_UNIT = "the unit of the loss"
"""What stands for the unit of a module's loss, which a run knows."""
VALUES = {
    "gap_best": Quantity("gap at the best epoch", LOSS_UNIT, higher_is_better=False),
    "gap_last": Quantity("gap at the last epoch", LOSS_UNIT, higher_is_better=False),
    "val_loss_best": Quantity("validation loss at the best epoch", LOSS_UNIT, higher_is_better=False),
}
SERIES = {"gap": Quantity("validation loss minus train loss", LOSS_UNIT, higher_is_better=False)}

ROUNDING = 1e-6
"""Relative difference of two float32 means over the same examples that rounding can cause."""


def measure(trained: TrialResult) -> Measured:
    """Measure the generalization gap, validation loss minus train loss.

    Both losses are means over examples, with dropout off and the weights at the end of the epoch; the train loss is
    measured on a fixed part of the training set. The training loss with dropout on is unsuitable: it grows with the
    rate, so the gap would shrink without less overfitting. Values: `gap_best` (at the epoch of the kept weights),
    `gap_last` (at the last epoch), and `val_loss_best`, since an untrained network has no gap either. Series: `gap` by
    epoch, from 1.

    Raises:
        NotMeasuredError: A loss is missing, or both are equal up to rounding in every epoch, as on the same examples.
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
        raise NotMeasuredError("its validation step returns no loss on a part of the training set")
    known = [point for point in curve if math.isfinite(_gap(point))]
    if known and all(abs(_gap(point)) <= ROUNDING * max(abs(point.val_loss), abs(point.train_loss)) for point in known):
        raise NotMeasuredError(
            "train and validation loss are equal up to rounding in every epoch, as on the same examples"
        )


def _gap(point: EpochMetrics) -> float:
    return point.val_loss - point.train_loss
