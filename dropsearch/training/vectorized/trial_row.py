"""A trial that trains in a row of the stacked tensors."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from dropsearch.core.errors import InputError, RunError, UnsupportedError
from dropsearch.core.records import EpochMetrics, TrialSpec
from dropsearch.core.user_errors import place_of_method
from dropsearch.training.protocols import TrialData
from dropsearch.training.vectorized.row_optimizers import RowOptimizer, Schedule
from dropsearch.training.vectorized.row_trainer import RowTrainer
from dropsearch.training.vectorized.shared_state import SharedState
from dropsearch.training.vectorized.step_logs import RowLog
from dropsearch.training.vectorized.step_traits import Path
from dropsearch.training.vectorized.watched_parts import watched_parts

OF_ALL_ROWS = (UnsupportedError, InputError, RunError, torch.OutOfMemoryError)
"""Errors that no row causes by its values."""


@dataclass
class TrialRow:
    """One trial in its row: its own epoch and step count, schedules and learning curve."""

    spec: TrialSpec
    module: LightningModule
    """The trial's module, whose parameters are views of the row."""
    data: TrialData
    """The data of the trial, with its own training and validation set."""
    loader: Any
    """Its training batches: a `RowLoader`, or a loader that `datasets.keyed_loader.keyed` returned."""
    started: float
    """`time.perf_counter()` at the start of the trial."""
    callbacks: Sequence[Any] = ()
    """Its own callbacks; a twin of it has none."""
    optimizer: RowOptimizer | None = None
    schedules: list[Schedule] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    """Number of batches that it has trained on."""
    updates: int = 0
    """Number of steps of its optimizer: a Trainer's `global_step`."""
    curve: list[EpochMetrics] = field(default_factory=list)
    is_idle: bool = False
    """Whether the trial has ended and no other trial replaced it; the row still trains, its values are ignored."""
    batches: int | None = None
    """Length of its loader at the start of the trial; None if unknown."""
    val_loader: Any = None
    """Its validation batches, if they are separate."""
    failure: str = ""
    """Why the trial fails at the end of the epoch; else empty."""
    error: Exception | None = None
    """What its values made the module raise; the row takes no more steps, and its trial trains again by itself."""
    validated: dict[str, Tensor] | None = None
    """Weights that the last validation saw, if hooks or callbacks may put others in their place."""
    keeps_best: bool = False
    """Whether the weights of its best epoch are saved."""
    best: dict[str, Tensor] | None = None
    """Weights of the best epoch, if they will be saved."""
    view: RowTrainer | None = None
    """The Trainer seen by the module, if it needs a separate one."""
    evaluations: Counter[str] = field(default_factory=Counter)
    """Number of validation steps that draw or drop, by evaluated data."""
    log: RowLog | None = None
    """Values logged in training, if steps have effects other than a loss."""
    groups: Sequence[Mapping[str, Any]] = ()
    """Parameter groups of its optimizer, whose options schedules change."""
    lr_used: tuple[float, float] | None = None
    """Smallest and largest learning rate of the first group over all steps."""

    @cached_property
    def parts(self) -> Mapping[Path, Any]:
        """The parts of the module whose attributes hooks may change, by path."""
        return watched_parts(self.module)

    @cached_property
    def shared(self) -> SharedState:
        """What the code of the module may change that no row has for itself."""
        return SharedState(self.parts)

    @property
    def least_objective(self) -> float:
        """The lowest objective (such as the validation loss) so far; inf before the first epoch."""
        return min((point.objective for point in self.curve), default=math.inf)

    @property
    def trains(self) -> bool:
        """Whether the row takes steps that count."""
        return not self.is_idle and self.error is None

    @contextmanager
    def raising_alone(self) -> Iterator[None]:
        """Note what code of the module raises that runs for this row by itself."""
        try:
            yield
        except OF_ALL_ROWS:
            raise
        except Exception as error:
            self.error = error

    def note_learning_rate(self) -> None:
        """Record the learning rate of a step."""
        if self.groups and "lr" in self.groups[0]:
            lr = float(self.groups[0]["lr"])
            low, high = self.lr_used or (lr, lr)
            self.lr_used = min(low, lr), max(high, lr)

    def is_due(self, index: int, accumulation: int) -> bool:
        """Return whether its optimizer steps after this batch of the epoch, counted from 0."""
        return (index + 1) % accumulation == 0 or index + 1 == self.batches

    def advance(self, interval: str, count: int, metrics: Mapping[str, float] | None = None) -> None:
        """Step the schedules with this interval ("step" or "epoch") after so many batches of the epoch, or epochs.

        With metrics, these are the schedules that monitor a metric, which must be logged (`UnsupportedError`).
        """
        for schedule in self.schedules:
            watches = schedule.monitor is not None
            if schedule.interval != interval or count % schedule.frequency or watches is (metrics is None):
                continue
            if watches and schedule.monitor not in (metrics or {}):
                if not schedule.strict:
                    continue
                place = place_of_method(self.module, "configure_optimizers")
                raise UnsupportedError(f"a schedule monitors {schedule.monitor}, which the module does not log{place}")
            value = (metrics or {})[schedule.monitor] if schedule.monitor is not None else None
            with warnings.catch_warnings():
                # Fused steps bypass `optimizer.step`, so the scheduler warns that it was not called.
                warnings.filterwarnings("ignore", message=".*lr_scheduler.step().*before.*optimizer.step.*")
                step: Any = schedule.scheduler.step  # schedules that monitor a metric receive its value
                step() if value is None else step(value)


def require_a_row(trial_rows: Sequence[TrialRow]) -> None:
    """Raise the error that all rows raised in their first step, if there is one: it is that of the program."""
    training = [each for each in trial_rows if not each.is_idle]
    errors = [each.error for each in training if each.error is not None and each.step == 0]
    if errors and len(errors) == len(training):
        raise errors[0]
