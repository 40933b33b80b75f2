"""What trials are measured, chosen and judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class EpochMetrics:
    """One point of a trial's curves. Losses are means over examples, in nats; accuracies in [0, 1]."""

    epoch: int
    """Counted from 0."""
    train_loss: float
    """With dropout off, on a fixed part of the training set as large as the validation set."""
    train_loss_as_trained: float
    """The mean over the epoch's batches while the weights moved, with dropout on."""
    val_loss: float
    train_acc: float = math.nan
    val_acc: float = math.nan
    monitored: float | None = None
    """What is minimised where that is not `val_loss`: see `Monitor.objective`."""
    logged: Mapping[str, float] = field(default_factory=dict)
    """What else the module logged at its validation, by the module's own names."""

    @property
    def objective(self) -> float:
        """What trials are chosen by: the less the better."""
        return self.val_loss if self.monitored is None else self.monitored


@dataclass(frozen=True)
class Monitor:
    """The metric that trials are chosen by, as the module logs it."""

    name: str = "val_loss"
    mode: Literal["min", "max"] = "min"

    @property
    def is_val_loss(self) -> bool:
        """Whether it is the validation loss, the less the better."""
        return self == Monitor()

    def objective(self, value: float) -> float:
        """Turn the metric into what is minimised, or that back into the metric."""
        return value if self.mode == "min" else -value


@dataclass(frozen=True)
class ComparisonMetric:
    """What the confirmed winners of arms are compared by, seed by seed."""

    metric: str = "test_acc"
    scores: Literal["test_acc", "test_loss", "val_loss"] = "test_acc"
    """Where the numbers stand: in `TestScores`, or in the winner's retrainings."""
    label: str = "test accuracy"
    percent: bool = True
    higher_is_better: bool = True
