"""Many trials at once: rows of one array, trained by one Lightning Trainer.

The array is itself a LightningModule. Each of its epochs is one epoch of every row, whichever epoch of its own
trial the row is in: when a trial ends, its row takes the next one at the epoch's end, and when no trial is
left to take, the array narrows.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from dropsearch._compat.lightning_sigterm import KeepSigtermHandler
from dropsearch.core.errors import InputError, RunError
from dropsearch.core.records import EpochMetrics, State, TrialResult, TrialSpec
from dropsearch.dropout.row_control import mask_shapes
from dropsearch.training.epoch_metrics import diverged, epoch_metrics
from dropsearch.training.logged_steps import batch_size, captured_logs
from dropsearch.training.modes import set_to_train
from dropsearch.training.protocols import INTERRUPTED, CheckpointPath, Feed, RowDataSource, TrainerSettings
from dropsearch.training.sequential import ModuleFactory, describe_error, quiet_lightning, save_checkpoint
from dropsearch.training.trainers import with_steps
from dropsearch.training.vectorized.device_step import DeviceStep, records
from dropsearch.training.vectorized.flat_optimizers import flat_optimizer
from dropsearch.training.vectorized.row_optimizers import configured, parameter_order
from dropsearch.training.vectorized.stacked_state import StackedState
from dropsearch.training.vectorized.step import HostStep, VectorizedStep, cast
from dropsearch.training.vectorized.trial_row import RowBatches, TrialRow
from dropsearch.training.vectorized.vmap_runner import VmapRunner


class CancelledError(Exception):
    """The feed was cancelled; the trials in the array have been told as interrupted."""


class VectorizedTrials(LightningModule):
    """The LightningModule whose rows are trials of one partition (see `waiting`); `trial_rows` says which.

    Args:
        make_module: Builds a trial's module.
        data: Where batches come from; its loaders tell the order of an epoch.
        settings: What all trials share.
        feed: Hands out the trials.
        width: How many trials train at once, at most.
        checkpoint_path: Where the weights of a trial's best epoch go.
    """

    def __init__(
        self,
        make_module: ModuleFactory,
        data: RowDataSource,
        settings: TrainerSettings,
        feed: Feed,
        width: int,
        checkpoint_path: CheckpointPath = lambda _: None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.make_module, self.data, self.settings = make_module, data, settings
        self.feed, self.checkpoint_path = feed, checkpoint_path
        self.val, self.part = data.val_dataloader(), data.train_part_loader()
        # A trial's own module asks its Trainer how long it trains when it makes a schedule.
        with quiet_lightning():
            self._trial_trainer = with_steps(_trainer(settings, settings.max_epochs), len(data.train_loader(0)))
            self._user_trainer = _trainer(settings, -1)
        self.trial_rows: list[TrialRow] = []
        width = min(width, feed.most_at_once or width)
        while len(self.trial_rows) < width and (trial_row := self._next()) is not None:
            self.trial_rows.append(trial_row)
        if self.trial_rows:
            self._build()

    # -- what the rows are made of

    def _next(self) -> TrialRow | None:
        """Return a slot for the next trial that can be built; those that cannot are told why."""
        while not self.feed.cancelled() and (spec := self.feed.ask()) is not None:
            try:
                return self._trial_row(spec)
            except (InputError, RunError, torch.cuda.OutOfMemoryError):
                raise
            except Exception as error:
                self.feed.tell(TrialResult(spec, "FAIL", (), 0.0, describe_error(error)))
        return None

    def _trial_row(self, spec: TrialSpec) -> TrialRow:
        module = self.make_module(spec)
        module.trainer = self._trial_trainer
        loader = self.data.train_loader(spec.seed)
        return TrialRow(spec, set_to_train(module.to(loader.tensors[0].device)), loader, time.perf_counter())

    def _build(self) -> None:
        first = self.trial_rows[0]
        device = first.loader.tensors[0].device
        dtype = torch.float64 if self.settings.precision == "64-true" else torch.float32
        optimizer, _ = configured(first.module)
        self.rows = StackedState(
            first.module, len(self.trial_rows), parameter_order(first.module, optimizer), device, dtype
        )
        skeleton = self.make_module(first.spec).to(device)
        skeleton.trainer = self._trial_trainer
        self.runner = VmapRunner(skeleton.to(dtype), self.settings.precision, self.settings.convolutions)
        self.calling: set[str] = set()
        self.shapes = self._mask_shapes(skeleton)
        self.stepping = self._stepping(first.module, optimizer)
        for row in range(len(self.trial_rows)):
            self._fill(row)
        self.stepping.refresh(self.trial_rows)

    def _stepping(self, module: LightningModule, optimizer: Optimizer) -> VectorizedStep:
        # Rows of one array have the same limit of the gradient, whether it is searched or not.
        settings = dataclasses.replace(self.settings, gradient_clip_val=self.settings.clip(self.trial_rows[0].spec))
        parts = (self.runner, self.rows, self.shapes, settings)
        if records(self.rows.flat.device) and (flat := flat_optimizer(self.rows, module, optimizer)) is not None:
            return DeviceStep(*parts, flat)
        return HostStep(*parts)

    def _mask_shapes(self, skeleton: LightningModule) -> dict[str, torch.Size]:
        first = self.trial_rows[0]
        batch = next(iter(first.loader))
        state = {name: value.clone() for name, value in skeleton.state_dict().items()}
        with torch.no_grad(), captured_logs(skeleton):
            step = skeleton.training_step
            run = lambda: step(cast(batch, self.rows.flat.dtype), 0)  # noqa: E731
            shapes = mask_shapes(skeleton, first.spec.rates, run, self.calling)
        skeleton.load_state_dict(state)  # a batch of BatchNorm statistics was taken
        return shapes

    def _fill(self, row: int) -> None:
        trial_row = self.trial_rows[row]
        self.rows.bind(row, trial_row.module)
        optimizer, trial_row.schedules = configured(trial_row.module)
        self.stepping.fill(row, trial_row, optimizer)

    # -- training

    def fit(self) -> None:
        """Train until every slot is empty."""
        with quiet_lightning(), self.runner.ready(self.calling), warnings.catch_warnings():
            # The array has no optimiser of its own: each row has one.
            warnings.filterwarnings("ignore", message=".*configure_optimizers. returned .None.*")
            self._user_trainer.fit(self, RowBatches(self.trial_rows))

    def seconds_a_step(self, steps: int) -> float:
        """Return the least time that one of a few steps of all rows takes; they train the rows.

        The least, for on a busy machine all others tell of its other work.
        """
        times = []
        with self.runner.ready(self.calling):
            self.on_train_epoch_start()
            for batch in itertools.islice(itertools.cycle(RowBatches(self.trial_rows)), steps):
                started = time.perf_counter()
                self.training_step(batch, 0)
                self.stepping.means()  # waits for a GPU
                times.append(time.perf_counter() - started)
        return min(times)

    def evaluated(self) -> dict[str, list[float]]:
        """Return what every row logs on the validation set."""
        return self._evaluate(self.val)

    def state(self) -> list[Tensor]:
        """Return the tensors that are kept from step to step."""
        return [self.rows.flat, self.rows.gradients, *self.rows.buffers.values(), *self.stepping.state(self.trial_rows)]

    def configure_optimizers(self) -> None:
        """Return nothing: each row has the optimiser of its own module."""

    def on_train_epoch_start(self) -> None:
        """Begin to sum up what the rows log."""
        self.stepping.begin_epoch(self.trial_rows)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """Train one step of every row; the batch is `[rows, batch, ...]`."""
        self.stepping.run(self.trial_rows, batch)
        if self.feed.cancelled():
            self._interrupt()

    def _interrupt(self) -> None:
        for trial_row in self.trial_rows:
            self._tell(trial_row, "FAIL", INTERRUPTED)
        self.trial_rows.clear()
        raise CancelledError

    def on_train_epoch_end(self) -> None:
        """Measure every row with dropout off, report, and give the rows of ended trials to the next."""
        if not self.trial_rows:
            return
        as_trained = self.stepping.means()
        val = self.evaluated()
        part = self._evaluate(self.part)
        ended = []
        for row, trial_row in enumerate(self.trial_rows):
            metrics = epoch_metrics(
                trial_row.epoch,
                as_trained["train_loss"][row],
                {name: values[row] for name, values in part.items()},
                {name: values[row] for name, values in val.items()},
                self.settings.monitor,
            )
            if self._take_in(trial_row, metrics):
                ended.append(row)
        self._replace(ended)

    def _evaluate(self, batches: Any) -> dict[str, list[float]]:
        totals: dict[str, Tensor] = {}
        count = 0
        for batch in batches:
            size = batch_size(batch)
            logged = self.runner.evaluate(self.rows, cast(batch, self.rows.flat.dtype))
            for name, value in logged.items():
                totals[name] = totals.get(name, 0.0) + value.double() * size
            count += size
        return {name: (total / count).tolist() for name, total in totals.items()}

    def _take_in(self, trial_row: TrialRow, metrics: EpochMetrics) -> bool:
        """Take in an epoch of a slot; return whether its trial ended."""
        least = trial_row.least_objective
        trial_row.curve.append(metrics)
        trial_row.epoch += 1
        if not math.isfinite(metrics.objective) or not math.isfinite(metrics.train_loss_as_trained):
            self._tell(trial_row, "FAIL", diverged(metrics, self.settings.monitor))
            return True
        if metrics.objective < least and self.checkpoint_path(trial_row.spec) is not None:
            trial_row.best = {name: value.clone() for name, value in trial_row.module.state_dict().items()}
        prune = self.feed.report(trial_row.spec, metrics)
        # A trial at its last epoch has cost all that it can: it is complete, whatever the pruner thinks of it.
        if trial_row.epoch == self.settings.max_epochs:
            self._tell(trial_row, "COMPLETE", "")
            return True
        if prune:
            self._tell(trial_row, "PRUNED", f"pruned after epoch {trial_row.epoch}")
            return True
        trial_row.advance("epoch", trial_row.epoch)
        return False

    def _tell(self, trial_row: TrialRow, state: State, reason: str) -> None:
        path = self.checkpoint_path(trial_row.spec) if state == "COMPLETE" else None
        if path is not None and trial_row.best is not None:
            self._save(trial_row, path)
        seconds = time.perf_counter() - trial_row.started
        self.feed.tell(TrialResult(trial_row.spec, state, tuple(trial_row.curve), seconds, reason, str(path or "")))

    def _save(self, trial_row: TrialRow, path: Path) -> None:
        module = self.make_module(trial_row.spec)
        module.load_state_dict(trial_row.best or {})
        trainer = self._trial_trainer
        trainer.strategy.connect(module)
        save_checkpoint(trainer, path)

    def _replace(self, ended: list[int]) -> None:
        """Give the rows of trials that ended to the next ones; where none are left, narrow the array."""
        empty = []
        for row in ended:
            trial_row = self._next()
            if trial_row is None:
                empty.append(row)
                continue
            self.trial_rows[row] = trial_row
            self._fill(row)
        if empty:
            self._narrow([row for row in range(len(self.trial_rows)) if row not in empty])
        if ended and self.trial_rows:
            self.stepping.refresh(self.trial_rows)

    def _narrow(self, kept: list[int]) -> None:
        self.trial_rows[:] = [self.trial_rows[row] for row in kept]
        if not self.trial_rows:
            self.trainer.should_stop = True
            return
        self.rows = self.rows.narrowed([trial_row.module for trial_row in self.trial_rows])
        self.stepping.narrow(self.rows, self.trial_rows, kept)


def release(on_gpu: bool) -> None:
    """Free what arrays that are done held on a GPU: an array and its Trainer know each other, so the collector must."""
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()


def _trainer(settings: TrainerSettings, max_epochs: int) -> Trainer:
    return Trainer(
        max_epochs=max_epochs,
        accelerator=settings.accelerator,
        devices=1,
        callbacks=[KeepSigtermHandler()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
