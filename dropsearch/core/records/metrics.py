"""Metrics of trials: per epoch, monitored during the search, and compared between arms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of one epoch, as the module logs them. Those of the built-in models: nats, and accuracies in [0, 1]."""

    epoch: int
    """Counted from 0."""
    train_loss: float
    """Train loss with dropout off, on a fixed part of the training set, of the size of the validation set at most.

    NaN in epochs of a search that do not measure it.
    """
    train_loss_as_trained: float
    """Train loss with dropout on: the mean over the batches of the epoch during training."""
    val_loss: float
    train_acc: float = math.nan
    val_acc: float = math.nan
    monitored: float | None = None
    """The minimized value if it is not `val_loss`; see `Monitor.objective`."""
    logged: Mapping[str, float] = field(default_factory=dict)
    """Other metrics that the module logged in validation, by its names."""

    @property
    def objective(self) -> float:
        """The value that the search minimizes."""
        return self.val_loss if self.monitored is None else self.monitored


@dataclass(frozen=True)
class Monitor:
    """The logged metric that the search optimizes, and its direction."""

    name: str = "val_loss"
    mode: Literal["min", "max"] = "min"
    unit: str = field(default="", compare=False)
    """What the user calls its unit; values are shown as they are logged, with this behind them."""

    @property
    def is_val_loss(self) -> bool:
        """Whether the monitored metric is the validation loss."""
        return self == Monitor()

    def objective(self, value: float) -> float:
        """Convert a metric to the minimized objective, or an objective back to the metric."""
        return value if self.mode == "min" else -value


@dataclass(frozen=True)
class ComparisonMetric:
    """The metric by which the confirmed winners of arms are compared, seed by seed."""

    metric: str = "test_acc"
    scores: Literal["test_acc", "test_loss", "val_loss"] = "test_acc"
    """The source of the values: `TestScores`, or the winner's retrainings."""
    label: str = "test accuracy"
    percent: bool = True
    """Whether it is a share in [0, 1] by contract, which is shown in per cent; see `example_scores`."""
    higher_is_better: bool = True
    unit: str = ""
    """Of any other metric: what the user calls its unit."""
    loss_unit: str = "nats"
    """The unit of train and validation loss where it is known, else empty."""
