"""A trial that trains in a row of the stacked tensors."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

from lightning import LightningModule
from torch import Tensor

from dropsearch.core.records import EpochMetrics, TrialSpec
from dropsearch.training.protocols import RowLoader
from dropsearch.training.vectorized.row_optimizers import RowOptimizer, Schedule


@dataclass
class TrialRow:
    """One trial in its row: its own epoch and step count, schedules and learning curve."""

    spec: TrialSpec
    module: LightningModule
    """The trial's module, whose parameters are views of the row."""
    loader: RowLoader
    started: float
    """`time.perf_counter()` at the start of the trial."""
    optimizer: RowOptimizer | None = None
    schedules: list[Schedule] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    curve: list[EpochMetrics] = field(default_factory=list)
    is_idle: bool = False
    """Whether the trial has ended and no other trial replaced it; the row still trains, its values are ignored."""
    best: dict[str, Tensor] | None = None
    """Weights of the best epoch, if they are to be saved."""

    @property
    def least_objective(self) -> float:
        """The lowest objective (such as the validation loss) so far; inf before the first epoch."""
        return min((point.objective for point in self.curve), default=math.inf)

    def advance(self, interval: str, count: int) -> None:
        """Step the schedules with this interval ("step" or "epoch") after `count` intervals."""
        for schedule in self.schedules:
            if schedule.interval == interval and count % schedule.frequency == 0:
                with warnings.catch_warnings():
                    # Fused steps bypass `optimizer.step`, so the scheduler warns that it was not called.
                    warnings.filterwarnings("ignore", message=".*lr_scheduler.step().*before.*optimizer.step.*")
                    schedule.scheduler.step()
