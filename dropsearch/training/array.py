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
from collections.abc import Mapping
from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from dropsearch.dropout.array import mask_shapes
from dropsearch.errors import InputError, RunError
from dropsearch.records import EpochMetrics, State, TrialResult, TrialSpec
from dropsearch.training.alone import ModuleFactory, quiet_lightning, save_checkpoint, told
from dropsearch.training.cells import keep_weights_apart
from dropsearch.training.device_step import DeviceStep, records
from dropsearch.training.feed import INTERRUPTED, CheckpointPath, Feed, RowDataSource, TrainerSettings
from dropsearch.training.flat_optimizers import flat_optimizer
from dropsearch.training.logs import captured_logs
from dropsearch.training.measures import diverged, epoch_metrics
from dropsearch.training.modes import set_to_train
from dropsearch.training.recorded import WARM_UP
from dropsearch.training.row_batches import RowBatches
from dropsearch.training.row_evaluation import RowEvaluation
from dropsearch.training.row_optimizers import configured, parameter_order
from dropsearch.training.rows import Rows
from dropsearch.training.signals import OwnSigterm
from dropsearch.training.slot import Slot
from dropsearch.training.step import ArrayStep, HostStep, cast
from dropsearch.training.together import Together
from dropsearch.training.trainers import with_steps


class CancelledError(Exception):
    """The feed was cancelled; the trials in the array have been told as interrupted."""


class Array(LightningModule):
    """The LightningModule whose rows are trials of one partition (see `waiting`); `slots` says which.

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
        self.sets = {"val": data.val_dataloader(), "part": data.train_part_loader()}
        # A trial's own module asks its Trainer how long it trains when it makes a schedule.
        with quiet_lightning():
            self._trial_trainer = with_steps(_trainer(settings, settings.max_epochs), len(data.train_loader(0)))
            self._own_trainer = _trainer(settings, -1)
        self._measured = False
        self.slots: list[Slot] = self._next(min(width, feed.most_at_once or width))
        self.batches = RowBatches(self.slots)
        if self.slots:
            self._build()

    # -- what the rows are made of

    def _next(self, count: int) -> list[Slot]:
        """Return slots for the next trials that can be built; those that cannot are told why."""
        slots: list[Slot] = []
        while len(slots) < count and not self.feed.cancelled() and (specs := self.feed.ask(count - len(slots))):
            failed = []
            for spec in specs:
                try:
                    slots.append(self._slot(spec))
                except (InputError, RunError, torch.cuda.OutOfMemoryError):
                    raise
                except Exception as error:
                    failed.append(TrialResult(spec, "FAIL", (), 0.0, told(error)))
            if failed:
                self.feed.tell(failed)
        return slots

    def _slot(self, spec: TrialSpec) -> Slot:
        module = self.make_module(spec)
        module.trainer = self._trial_trainer
        return Slot(spec, set_to_train(module), self.data.train_loader(spec.seed), time.perf_counter())

    def _build(self) -> None:
        first = self.slots[0]
        device = first.loader.tensors[0].device
        dtype = torch.float64 if self.settings.precision == "64-true" else torch.float32
        optimizer, _ = configured(first.module)
        self.rows = Rows(first.module, len(self.slots), parameter_order(first.module, optimizer), device, dtype)
        skeleton = self.make_module(first.spec).to(device)
        skeleton.trainer = self._trial_trainer
        self.together = Together(skeleton.to(dtype), self.settings.precision, self.settings.convolutions)
        self.evaluation = RowEvaluation(self.together, self.sets, recorded=records(device))
        self.calling: set[str] = set()
        self.shapes = self._mask_shapes(skeleton)
        keep_weights_apart(skeleton)
        self.stepping = self._stepping(first.module, optimizer)
        for row in range(len(self.slots)):
            self._fill(row)
        self.stepping.refresh(self.slots)

    def _stepping(self, module: LightningModule, optimizer: Optimizer) -> ArrayStep:
        # Rows of one array have the same limit of the gradient, whether it is searched or not.
        settings = dataclasses.replace(self.settings, gradient_clip=self.settings.clip(self.slots[0].spec))
        parts = (self.together, self.rows, self.shapes, settings, self.slots[0].loader.tensors)
        if records(self.rows.flat.device) and (flat := flat_optimizer(self.rows, module, optimizer)) is not None:
            return DeviceStep(*parts, flat)
        return HostStep(*parts)

    def _mask_shapes(self, skeleton: LightningModule) -> dict[str, torch.Size]:
        first = self.slots[0]
        batch = next(iter(first.loader))
        state = {name: value.clone() for name, value in skeleton.state_dict().items()}
        with torch.no_grad(), captured_logs(skeleton):
            step = skeleton.training_step
            run = lambda: step(cast(batch, self.rows.flat.dtype), 0)  # noqa: E731
            shapes = mask_shapes(skeleton, first.spec.rates, run, self.calling)
        skeleton.load_state_dict(state)  # a batch of BatchNorm statistics was taken
        return shapes

    def _fill(self, row: int) -> None:
        slot = self.slots[row]
        self.rows.bind(row, slot.module)
        keep_weights_apart(slot.module)
        slot.module.to(self.rows.flat.device)  # so that a module which asks knows where it is
        optimizer, slot.schedules = configured(slot.module)
        self.stepping.fill(row, slot, optimizer)

    # -- training

    def fit(self) -> None:
        """Train until every slot is empty."""
        with quiet_lightning(), self.together.ready(self.calling), warnings.catch_warnings():
            # The array has no optimiser of its own: each row has one.
            warnings.filterwarnings("ignore", message=".*configure_optimizers. returned .None.*")
            self._own_trainer.fit(self, self.batches)

    def seconds_a_step(self, steps: int) -> float:
        """Return the least time that one of a few steps of all rows takes, once it is recorded; they train the rows.

        The least, for on a busy machine all others tell of its other work.
        """
        times = []
        with self.together.ready(self.calling):
            pieces = itertools.cycle([None, *self.batches.pieces])
            unmeasured = WARM_UP + 1 if records(self.rows.flat.device) and not self._measured else 0
            self._measured = True
            while len(times) < unmeasured + steps:
                piece = next(pieces)
                if piece is None:
                    self.on_train_epoch_start()
                    continue
                started = time.perf_counter()
                self.training_step([piece], 0)
                if self.rows.flat.is_cuda:
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - started)
        return min(times[unmeasured:])

    def evaluated(self) -> dict[str, list[float]]:
        """Return what every row logs on the validation set."""
        self.evaluation.launch(self.rows)
        return self.evaluation.means()["val"]

    def state(self) -> list[Tensor]:
        """Return the tensors that are kept from step to step."""
        return [self.rows.flat, self.rows.gradients, *self.rows.buffers.values(), *self.stepping.state(self.slots)]

    def configure_optimizers(self) -> None:
        """Return nothing: each row has the optimiser of its own module."""

    def on_train_epoch_start(self) -> None:
        """Begin to sum up what the rows log."""
        self.stepping.begin_epoch(self.slots, self.batches.orders())

    def training_step(self, batch: list[slice], batch_idx: int) -> None:
        """Train every row on the pieces of its order, a step each."""
        for piece in batch:
            self.stepping.run(self.slots, piece)
            if self.feed.cancelled():
                self._interrupt()

    def _interrupt(self) -> None:
        training = [slot for slot in self.slots if not slot.is_idle]
        self.feed.tell([self._result(slot, "FAIL", INTERRUPTED) for slot in training])
        self.slots.clear()
        raise CancelledError

    def on_train_epoch_end(self) -> None:
        """Measure every row with dropout off, report, and give the rows of ended trials to the next."""
        if not self.slots:
            return
        self.evaluation.launch(self.rows)
        if self.rows.flat.is_cuda:
            self.batches.prepare(self.settings.max_epochs)
        measured = self.evaluation.means()
        as_trained, val, part = self.stepping.means(), measured["val"], measured["part"]
        metrics = {
            row: epoch_metrics(
                slot.epoch,
                as_trained["train_loss"][row],
                {name: values[row] for name, values in part.items()},
                {name: values[row] for name, values in val.items()},
                self.settings.monitor,
            )
            for row, slot in enumerate(self.slots)
            if not slot.is_idle
        }
        self._replace(self._take_in(metrics))

    def _take_in(self, metrics: Mapping[int, EpochMetrics]) -> list[int]:
        """Take in an epoch of each row's trial; return the rows whose trials ended, which are told in their order."""
        results, reported = {}, []
        for row, point in metrics.items():
            slot = self.slots[row]
            least = slot.least_objective
            slot.curve.append(point)
            slot.epoch += 1
            if not math.isfinite(point.objective) or not math.isfinite(point.train_loss_as_trained):
                results[row] = self._result(slot, "FAIL", diverged(point, self.settings.monitor))
                continue
            if point.objective < least and self.checkpoint_path(slot.spec) is not None:
                slot.best = {name: value.clone() for name, value in slot.module.state_dict().items()}
            reported.append(row)
        prunes = self.feed.report([(self.slots[row].spec, metrics[row]) for row in reported])
        for row, prune in zip(reported, prunes, strict=True):
            slot = self.slots[row]
            # A trial at its last epoch has cost all that it can: it is complete, whatever the pruner thinks of it.
            if slot.epoch == self.settings.max_epochs:
                results[row] = self._result(slot, "COMPLETE", "")
            elif prune:
                results[row] = self._result(slot, "PRUNED", f"pruned after epoch {slot.epoch}")
            else:
                slot.advance("epoch", slot.epoch)
        ended = sorted(results)
        if ended:
            self.feed.tell([results[row] for row in ended])
        return ended

    def _result(self, slot: Slot, state: State, reason: str) -> TrialResult:
        """Return how a trial ended; the weights of a complete one are saved first."""
        path = self.checkpoint_path(slot.spec) if state == "COMPLETE" else None
        if path is not None and slot.best is not None:
            self._save(slot, path)
        seconds = time.perf_counter() - slot.started
        return TrialResult(slot.spec, state, tuple(slot.curve), seconds, reason, str(path or ""))

    def _save(self, slot: Slot, path: Path) -> None:
        module = self.make_module(slot.spec)
        module.load_state_dict(slot.best or {})
        trainer = self._trial_trainer
        trainer.strategy.connect(module)
        save_checkpoint(trainer, path)

    def _replace(self, ended: list[int]) -> None:
        """Give the rows of trials that ended to the next ones; where none are left, narrow the array."""
        idle = [row for row, slot in enumerate(self.slots) if slot.is_idle]
        free = sorted([*ended, *idle])
        slots = self._next(len(free))
        for row, slot in zip(free, slots, strict=False):
            self.slots[row] = slot
            self._fill(row)
        for row in free[len(slots) :]:
            self.slots[row].is_idle = True
        training = [row for row, slot in enumerate(self.slots) if not slot.is_idle]
        if len(training) <= self._least_busy * len(self.slots) and len(training) < len(self.slots):
            self._narrow(training)
        if (ended or slots) and self.slots:
            self.stepping.refresh(self.slots)

    @property
    def _least_busy(self) -> float:
        """The share of busy rows down to which an array stays as wide as it is: a narrower one is recorded anew."""
        return 0.5 if records(self.rows.flat.device) else 1.0

    def _narrow(self, kept: list[int]) -> None:
        self.slots[:] = [self.slots[row] for row in kept]
        if not self.slots:
            self.trainer.should_stop = True
            return
        self.rows = self.rows.narrowed([slot.module for slot in self.slots])
        self.stepping.narrow(self.rows, self.slots, kept)


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
        callbacks=[OwnSigterm()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
