"""A place in an array, and the trial that is in it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from lightning import LightningModule
from torch import Tensor

from dropsearch.core.records import EpochMetrics, TrialSpec
from dropsearch.training.protocols import RowLoader
from dropsearch.training.vectorized.row_optimizers import RowOptimizer, Schedule


@dataclass
class TrialRow:
    """One trial in its place: its own epoch and step, its schedule, its curve."""

    spec: TrialSpec
    module: LightningModule
    """The trial's own module, which lives in a row of the array."""
    loader: RowLoader
    started: float
    """`time.perf_counter()` when the trial took the place."""
    optimizer: RowOptimizer | None = None
    schedules: list[Schedule] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    curve: list[EpochMetrics] = field(default_factory=list)
    is_idle: bool = False
    """The trial has ended and no other took the place: its row trains on, and nothing of it counts."""
    best: dict[str, Tensor] | None = None
    """The weights of the best epoch, where they are wanted."""

    @property
    def least_objective(self) -> float:
        """The least objective (the validation loss) so far, inf before the first epoch."""
        return min((point.objective for point in self.curve), default=math.inf)

    def advance(self, interval: str, count: int) -> None:
        """Move the schedules that move by `interval` (step or epoch), of which `count` have passed."""
        for schedule in self.schedules:
            if schedule.interval == interval and count % schedule.frequency == 0:
                with warnings.catch_warnings():
                    # A fused step does not go through the optimiser's own `step`, which the schedule looks out for.
                    warnings.filterwarnings("ignore", message=".*lr_scheduler.step().*before.*optimizer.step.*")
                    schedule.scheduler.step()


class RowBatches:
    """An iterable of batches `[rows, batch, ...]`, one epoch of every row at each pass.

    Args:
        trial_rows: The list of open rows, which changes between epochs as trials end and begin.
    """

    def __init__(self, trial_rows: list[TrialRow]) -> None:
        self._slots = trial_rows

    def __len__(self) -> int:
        return len(self._slots[0].loader) if self._slots else 0

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        loader = self._slots[0].loader
        size, tensors = loader.batch_size, loader.tensors
        orders = torch.stack([trial_row.loader.order(trial_row.epoch) for trial_row in self._slots]).to(
            tensors[0].device
        )
        for start in range(0, orders.shape[1], size):
            chosen = orders[:, start : start + size]
            yield tuple(t.index_select(0, chosen.reshape(-1)).view(*chosen.shape, *t.shape[1:]) for t in tensors)
