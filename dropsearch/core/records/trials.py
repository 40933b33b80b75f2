"""Specifications, metrics and results of trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


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


State = Literal["COMPLETE", "PRUNED", "FAIL"]
TrialPhase = str


INTERRUPTED = "interrupted"
"""Reason of a trial interrupted from outside; the next run trains it again."""

OPTIMIZER_OPTIONS = ("optimizer.betas", "optimizer.momentum", "optimizer.nesterov")
"""Options that can be searched for any optimizer that has them; set in its parameter groups."""


@dataclass(frozen=True)
class TrialSpec:
    """All inputs that determine a trial's result, except those shared by all trials of an arm."""

    arm: str
    number: int
    """Number in its study. Each arm has a study for the search and another for the confirmation."""
    seed: int
    """Determines initial weights, batch order and masks; see `redraws_split`."""
    rates: Mapping[str, float]
    """Rate by site name; empty in an arm without dropout."""
    lr: float
    weight_decay: float
    params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters proposed by the sampler, by Optuna's names."""
    phase: TrialPhase = "search"
    configuration: int | None = None
    """In a confirmation, the number of the retrained search trial."""
    repeat: int = 1
    """Repetition of the arm's search; selection uses the first one only."""
    variation: str = ""
    """In a retraining with a change, a description of the change."""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """Other searched values by configuration key, such as `model.width`."""

    @property
    def redraws_split(self) -> bool:
        """Whether the seed also draws the split into training and validation set, if the data can be split again."""
        return self.phase != "search"

    @property
    def key(self) -> str:
        """A name that is unique in a run: ``dropout/3``, ``dropout/repeat-2/3`` or ``dropout/confirm/12``."""
        repeat = f"/repeat-{self.repeat}/" if self.repeat > 1 else "/"
        middle = repeat if self.phase == "search" else f"/{self.phase}/"
        return f"{self.arm}{middle}{self.number}"


@dataclass(frozen=True)
class TrialResult:
    """Final state and learning curve of a trial."""

    spec: TrialSpec
    state: State
    curve: tuple[EpochMetrics, ...]
    seconds: float
    reason: str = ""
    """Why the trial failed or was stopped; empty for COMPLETE."""
    checkpoint: str = ""
    """Path of the Lightning checkpoint with the weights of the best epoch; empty if none was saved."""
    checkpoint_sha256: str = ""
    """The checkpoint's sha256 in hexadecimal."""
    lr_used: tuple[float, float] | None = None
    """Smallest and largest learning rate of the first parameter group over all steps; None if unknown."""

    @property
    def interrupted(self) -> bool:
        """Whether the trial was interrupted from outside and must be trained again."""
        return self.state == "FAIL" and self.reason == INTERRUPTED

    @property
    def best(self) -> EpochMetrics | None:
        """The epoch with the lowest finite objective (the validation loss), or None if there is none."""
        finite = [point for point in self.curve if math.isfinite(point.objective)]
        return min(finite, key=lambda point: point.objective, default=None)

    @property
    def objective(self) -> float:
        """The lowest finite objective; infinite if there is none."""
        return self.best.objective if self.best else math.inf
