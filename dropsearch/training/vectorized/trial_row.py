"""A trial that trains in a row of the stacked tensors."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning import LightningModule
from torch import Tensor

from dropsearch.core.errors import UnsupportedError
from dropsearch.core.records import EpochMetrics, TrialSpec
from dropsearch.training.protocols import RowTrialData
from dropsearch.training.vectorized.row_logs import RowLog
from dropsearch.training.vectorized.row_optimizers import RowOptimizer, Schedule
from dropsearch.training.vectorized.row_trainer import RowTrainer


@dataclass
class TrialRow:
    """One trial in its row: its own epoch and step count, schedules and learning curve."""

    spec: TrialSpec
    module: LightningModule
    """The trial's module, whose parameters are views of the row."""
    data: RowTrialData
    """The data of the trial, with its own training and validation set."""
    loader: Any
    """Its training batches: a `RowLoader`, or a loader that `datasets.keyed_loader.keyed` returned."""
    started: float
    """`time.perf_counter()` at the start of the trial."""
    optimizer: RowOptimizer | None = None
    schedules: list[Schedule] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    curve: list[EpochMetrics] = field(default_factory=list)
    is_idle: bool = False
    """Whether the trial has ended and no other trial replaced it; the row still trains, its values are ignored."""
    batches: int | None = None
    """Number of batches that its loader said it has when the trial began; None if it does not know."""
    val_loader: Any = None
    """Its validation batches, if it reads its own."""
    failure: str = ""
    """Why the trial fails at the end of the epoch; else empty."""
    best: dict[str, Tensor] | None = None
    """Weights of the best epoch, if they are to be saved."""
    view: RowTrainer | None = None
    """The Trainer that the module sees, if it needs one of its own."""
    evaluations: Counter[str] = field(default_factory=Counter)
    """How many validation steps there were that draw or drop, by what is validated."""
    log: RowLog | None = None
    """What the module logs in training, if its steps do more than compute a loss."""
    groups: Sequence[Mapping[str, Any]] = ()
    """The parameter groups of its own optimizer, whose options schedules change."""
    lr_used: tuple[float, float] | None = None
    """The least and the largest learning rate of the first group that a step was taken with."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Numbers that its training steps log and that differ from those of the other rows, by name."""

    @property
    def least_objective(self) -> float:
        """The lowest objective (such as the validation loss) so far; inf before the first epoch."""
        return min((point.objective for point in self.curve), default=math.inf)

    def note_learning_rate(self) -> None:
        """Note the learning rate that a step is taken with."""
        if self.groups and "lr" in self.groups[0]:
            lr = float(self.groups[0]["lr"])
            low, high = self.lr_used or (lr, lr)
            self.lr_used = min(low, lr), max(high, lr)

    def log_of_step(self, name: str, value: Any, *args: Any, **options: Any) -> None:
        """Take what a training step logs, with the row's own numbers."""
        assert self.log is not None
        self.log.log(name, self.numbers.get(name, value), *args, **options)

    def with_numbers(self, logged: Mapping[str, float]) -> dict[str, float]:
        """Return what training steps logged as means and last values, with the row's own numbers."""
        own = {f"{name}{end}": value for name, value in self.numbers.items() for end in ("", "_step", "_epoch")}
        return {name: own.get(name, value) for name, value in logged.items()}

    def advance(self, interval: str, count: int, metrics: Mapping[str, float] | None = None) -> None:
        """Step the schedules with this interval ("step" or "epoch") after `count` intervals.

        Args:
            interval: step or epoch.
            count: Number of intervals so far.
            metrics: Steps those that watch a metric, with its value; the others if None.

        Raises:
            UnsupportedError: A metric that is watched was not logged.
        """
        for schedule in self.schedules:
            watches = schedule.monitor is not None
            if schedule.interval != interval or count % schedule.frequency or watches is (metrics is None):
                continue
            if watches and schedule.monitor not in (metrics or {}):
                raise UnsupportedError(f"a schedule watches {schedule.monitor}, which the module does not log")
            value = (metrics or {})[schedule.monitor] if schedule.monitor is not None else None
            with warnings.catch_warnings():
                # Fused steps bypass `optimizer.step`, so the scheduler warns that it was not called.
                warnings.filterwarnings("ignore", message=".*lr_scheduler.step().*before.*optimizer.step.*")
                step: Any = schedule.scheduler.step  # those that watch a metric take its value
                step() if value is None else step(value)
