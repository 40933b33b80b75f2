"""Many trials at once, as rows of stacked tensors that one Lightning Trainer trains.

An epoch of `VectorizedTrials` is one epoch of every row, and each row counts the epochs of its own trial. When a trial
ends, its row gets the next trial of the feed. If the feed is empty, the stacked tensors become narrower; they
become wider again if the feed only waited for other trials.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import statistics
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from dropsearch.core.batches import cast
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.records import EpochMetrics, TrialSpec
from dropsearch.training.epoch_metrics import diverged, epoch_metrics
from dropsearch.training.logged_steps import in_precision, runs_aside
from dropsearch.training.protocols import (
    INTERRUPTED,
    CheckpointPath,
    DataSource,
    Feed,
    TrainerSettings,
    is_in_memory,
    validates_by_row,
)
from dropsearch.training.sequential import ModuleFactory
from dropsearch.training.trainers import quiet_lightning
from dropsearch.training.vectorized.cuda_graph import WARMUP_RUNS
from dropsearch.training.vectorized.device_step import DeviceStep, uses_cuda_graphs
from dropsearch.training.vectorized.evaluation_noise import EvaluationNoise
from dropsearch.training.vectorized.evaluation_sets import ReadSet
from dropsearch.training.vectorized.first_steps import FirstSteps
from dropsearch.training.vectorized.flat_optimizers import flat_optimizer
from dropsearch.training.vectorized.held_once import equal_in_all, use_frozen
from dropsearch.training.vectorized.row_batches import LockstepBatches, MemoryBatches, RowBatches, StepBatches
from dropsearch.training.vectorized.row_evaluation import LOADERS, RowEvaluation
from dropsearch.training.vectorized.row_modules import RowModules, Values
from dropsearch.training.vectorized.row_optimizers import configure_optimizer, optimized_columns, parameter_order
from dropsearch.training.vectorized.row_source import RowSource, plain_trainer
from dropsearch.training.vectorized.row_trainer import StepTrainer
from dropsearch.training.vectorized.stacked_state import StackedState
from dropsearch.training.vectorized.step import HostStep, VectorizedStep
from dropsearch.training.vectorized.step_traits import overridden
from dropsearch.training.vectorized.trainer_arguments import RowCallbacks
from dropsearch.training.vectorized.trial_row import TrialRow, require_a_row
from dropsearch.training.vectorized.vmap_modes import disable_flatten_parameters
from dropsearch.training.vectorized.vmap_runner import VmapRunner


class CancelledError(Exception):
    """The feed was cancelled, and the open trials were recorded as interrupted."""


class _Epoch(NamedTuple):
    """Logged values of an epoch, by row."""

    val: dict[int, Values]
    part: dict[int, Values]
    trained: dict[int, Values]
    """Values logged in training steps, and in hooks outside of validation."""


class VectorizedTrials(LightningModule):
    """A LightningModule that trains the trials of a feed, `width` at a time; `trial_rows` holds the current ones.

    Args:
        make_module: Builds a trial's module.
        data: Data in memory, whose loaders return the order of each epoch, or a loader for each row.
        settings: Training settings shared by all trials.
        feed: Feed of the trials, all of one partition (see `partitioned_feed`).
        width: Maximum number of trials that train at once.
        checkpoint_path: Where to save the weights of a trial's best epoch.
        holds_once: Whether rows share frozen parts that are equal in all trials.
    """

    def __init__(
        self,
        make_module: ModuleFactory,
        data: DataSource,
        settings: TrainerSettings,
        feed: Feed,
        width: int,
        checkpoint_path: CheckpointPath = lambda _: None,
        *,
        holds_once: bool = True,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self._may_hold_once = holds_once
        self.apart: list[tuple[TrialSpec, Exception]] = []
        """Trials whose rows raised an error by their values. They are not told: they are to train by themselves."""
        self._ended = 0
        """Number of trials that ended."""
        self.data, self.settings, self.feed = data, settings, feed
        self.source = RowSource(make_module, data, settings, feed, checkpoint_path)
        self._is_warm = False
        self.row_modules: RowModules | None = None
        """Work of modules outside of `vmap`; None if their steps only compute a loss and log means."""
        self.trial_rows: list[TrialRow] = []
        self._width = min(width, feed.most_at_once or width)
        self.trial_rows = self.source.ask(self._width, self._spare_memory)
        self._missing = self._width - len(self.trial_rows) if feed.held else 0
        """Number of rows to add as soon as the feed has trials for them."""
        self.batches = self._batches()
        if self.trial_rows:
            self._build()

    @property
    def holds_once(self) -> bool:
        """Whether rows share frozen parts."""
        return bool(self.trial_rows) and bool(self.rows.shared)

    # -- building rows

    def _spare_memory(self, trial_row: TrialRow, first: TrialRow) -> None:
        """Share the frozen parts of another module with a new one, unless its `setup` may still change them."""
        if self._may_hold_once and not any(overridden(trial_row.module, ("setup",))):
            # In a row of its own, a part of the first trial is overwritten when the next trial takes that row.
            rows: StackedState | None = getattr(self, "rows", None)
            first = self.trial_rows[0] if self.trial_rows else first
            use_frozen(trial_row.module, first.module, None if rows is None else rows.shared)

    def _batches(self) -> RowBatches:
        if not is_in_memory(self.data):
            return LockstepBatches(self.trial_rows, self.data.device)  # type: ignore[attr-defined]
        return MemoryBatches(self.trial_rows)

    def _build(self) -> None:
        first = self.trial_rows[0]
        device = self.batches.device
        dtype = torch.float64 if self.settings.precision == "64-true" else torch.float32
        traits = self.source.traits(first.spec, dtype)
        skeleton = self.source.module(first.spec).to(device)
        if not traits.is_plain:
            skeleton.trainer = StepTrainer(self.source.row_trainer(skeleton))  # type: ignore[assignment]
            skeleton.setup("fit")
        skeleton = in_precision(skeleton, dtype)
        self.runner = VmapRunner(skeleton, self.settings.precision, self.settings.convolutions, traits)
        noise = EvaluationNoise(
            lambda batch: self.runner.evaluation_shapes(cast(batch, dtype), first.spec.rates),
            self.settings.mask_seed,
        )
        if not traits.is_plain:
            self._may_hold_once &= not traits.has_callbacks  # averages change all parts by a rounding
            callbacks = RowCallbacks(self.settings.trainer)
            self.row_modules = RowModules(traits, self.runner, self.source.row_trainer, noise, callbacks)
            for trial_row in self.trial_rows:
                self.row_modules.attach(trial_row)
        optimizer, _ = configure_optimizer(first.module)
        self._first_steps = FirstSteps(self.runner, first.spec.rates, dtype)
        shared_parts = self._shared_parts() if self._may_hold_once else {}
        order = parameter_order(first.module, optimizer)
        self.rows = StackedState(first.module, len(self.trial_rows), order, device, dtype, shared_parts)
        own_splits = first.spec.redraws_split and first.data is not self.data
        shared = None if own_splits else {name: load(self.data) for name, load in LOADERS.items()}
        if shared is not None and validates_by_row(self.data):
            shared["val"] = ReadSet(device)
        noise.observe(first.data.val_dataloader())
        self.evaluation = RowEvaluation(self.runner, shared, noise, use_cuda_graph=uses_cuda_graphs(device))
        disable_flatten_parameters(skeleton)
        self.step = self._make_step(first.module, optimizer)
        self.step.row_modules = self.row_modules
        for row in range(len(self.trial_rows)):
            self._fill(row)
        self.step.refresh(self.trial_rows)

    def _shared_parts(self) -> dict[str, Tensor]:
        """Return the parts that all rows hold once."""
        # Separate loaders, so that no epoch of a row starts.
        seeds = (self.settings.batch_seed(trial_row.spec) for trial_row in self.trial_rows)
        changing = self._first_steps.follow(map(self.data.train_loader, seeds), self.batches.device)
        return equal_in_all([trial_row.module for trial_row in self.trial_rows], changing)

    def _make_step(self, module: LightningModule, optimizer: Optimizer) -> VectorizedStep:
        # All trials of a partition have the same clip value, whether it is searched or not.
        clip = self.settings.trainer().get("gradient_clip_val", self.settings.clip(self.trial_rows[0].spec))
        settings = dataclasses.replace(self.settings, gradient_clip_val=clip)
        self.rows.optimized = optimized_columns(self.rows, module, optimizer)
        parts = (self.runner, self.rows, self._first_steps.mask_shapes, settings)
        if isinstance(self.batches, MemoryBatches) and self.row_modules is None:
            flat = flat_optimizer(self.rows, module, optimizer) if uses_cuda_graphs(self.rows.flat.device) else None
            if flat is not None:
                return DeviceStep(*parts, self.batches, flat)
        return HostStep(*parts)

    def _fill(self, row: int) -> None:
        trial_row = self.trial_rows[row]
        self._attach(trial_row)
        self.rows.bind(row, trial_row.module)
        disable_flatten_parameters(trial_row.module)
        trial_row.module.to(self.rows.flat.device)  # sets `module.device`
        optimizer, trial_row.schedules = configure_optimizer(trial_row.module)
        trial_row.groups = optimizer.param_groups
        self._first_steps.note_numbers(trial_row)
        self.step.fill(row, trial_row, optimizer)
        if self.row_modules is not None:
            self.row_modules.start(trial_row, optimizer)

    def _attach(self, trial_row: TrialRow) -> None:
        """Set a row's module up, unless it is or needs no Trainer of its own."""
        if self.row_modules is not None and trial_row.view is None:
            self.row_modules.attach(trial_row)

    # -- training

    def fit(self) -> None:
        """Train until the feed is empty and all trials have ended."""
        with quiet_lightning(), self.runner.ready(), warnings.catch_warnings():
            # Each row has its own optimizer, so this module has none.
            warnings.filterwarnings("ignore", message=".*configure_optimizers. returned .None.*")
            try:
                plain_trainer(self.settings, max_epochs=-1).fit(self, self.batches)
            finally:
                self.batches.close()

    def seconds_per_step(self, steps: int) -> float:
        """Train all rows for a few steps and return the duration of one, including the reading of its batches.

        Warm-up and capture of CUDA graphs are not timed.
        """
        times: list[float] = []
        begun: Iterator[StepBatches] = iter(())
        with self.runner.ready():
            untimed = WARMUP_RUNS + 1 if uses_cuda_graphs(self.rows.flat.device) and not self._is_warm else 0
            self._is_warm = True
            empty = 0
            while len(times) < untimed + steps:
                started = time.perf_counter()
                taken = next(begun, None)
                if taken is None:
                    empty += 1
                    if empty > 2 and not times:
                        raise UnsupportedError("the training loader yields no batches")
                    self.on_train_epoch_start()
                    begun = self.batches.steps()
                    continue
                self.training_step([taken], 0)
                if self.rows.flat.is_cuda:
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - started)
        # The time of reading varies between steps; steps on examples in memory are only delayed by other load.
        found = times[untimed:]
        return statistics.median(found) if isinstance(self.batches, LockstepBatches) else min(found)

    def evaluate(self) -> dict[str, list[float]]:
        """Return the values that each row logs on the validation set."""
        self.evaluation.launch(self.rows, self.trial_rows, set())
        return self.evaluation.means()["val"]

    def state(self) -> list[Tensor]:
        """Return the tensors that exist between steps."""
        rows = self.rows
        held = [rows.flat, rows.gradients, *rows.buffers.values(), *rows.shared.values()]
        return [*held, *self.step.state(self.trial_rows)]

    def configure_optimizers(self) -> None:
        """Return None, since each row has its module's optimizer."""

    def on_train_epoch_start(self) -> None:
        """Run the hooks of the rows and reset the sums of logged values."""
        if self.row_modules is not None:
            self.row_modules.begin_epoch(self.trial_rows)
        self.step.begin_epoch(self.trial_rows)

    def training_step(self, batch: Iterable[StepBatches], batch_idx: int) -> None:
        """Train the rows for all steps of their epoch."""
        for taken in batch:
            self.step.run(self.trial_rows, taken)
            if self.feed.cancelled():
                self._interrupt()

    def _interrupt(self) -> None:
        training = [trial_row for trial_row in self.trial_rows if not trial_row.is_idle]
        self.feed.tell([self.source.result(trial_row, "FAIL", INTERRUPTED) for trial_row in training])
        self.trial_rows.clear()
        raise CancelledError

    def on_train_epoch_end(self) -> None:
        """Evaluate every row with dropout off, report the metrics, and replace the trials that ended."""
        if not self.trial_rows:
            return
        self._end_failed()
        training = [row for row, trial_row in enumerate(self.trial_rows) if not trial_row.is_idle]
        if not training:
            self._replace([])
            return
        as_trained, found = self.step.logs.losses(), self._evaluated()
        self.rows.require_shared_unchanged()
        self._end_failed()  # rows whose validation loader raised
        training = [row for row in training if not self.trial_rows[row].is_idle]
        metrics = {
            row: epoch_metrics(
                self.trial_rows[row].epoch,
                as_trained[row],
                found.part.get(row, {}),
                found.val[row],
                self.settings.monitor,
                found.trained[row],
            )
            for row in training
        }
        ended = self._report(metrics)
        self._end_failed()  # those whose last hooks raised
        self._replace(ended)

    def _end_failed(self) -> None:
        """End the trials whose loaders raised as failed, and set those apart whose modules raised.

        Raises:
            Exception: The error of a module, if more trials are set apart than ended.
        """
        require_a_row(self.trial_rows)
        for trial_row in self.trial_rows:
            if trial_row.error is not None and not trial_row.is_idle:
                self.apart.append((trial_row.spec, trial_row.error))
                trial_row.is_idle = True
        if len(self.apart) > self._ended + len(self.trial_rows):
            raise self.apart[0][1]
        failed = [each for each in self.trial_rows if each.failure and not each.is_idle]
        if failed:
            self.feed.tell([self.source.result(trial_row, "FAIL", trial_row.failure) for trial_row in failed])
        for trial_row in failed:
            trial_row.is_idle = True

    def _evaluated(self) -> _Epoch:
        """Validate all rows; return the logged values of the epoch."""
        if self.row_modules is not None:
            return self._evaluated_with_hooks(self.row_modules)
        due = self._due()
        self.evaluation.launch(self.rows, self.trial_rows, due)
        if self.rows.flat.is_cuda:
            self.batches.prepare(self.settings.max_epochs)
        means = self.evaluation.means()
        val, part = (
            {row: {name: column[row] for name, column in means[of].items()} for row in rows}
            for of, rows in (("val", range(len(self.trial_rows))), ("part", due))
        )
        # Such a step logs its loss, which has its own field.
        logged = [{} for _ in self.trial_rows] if runs_aside(self.runner.skeleton) else self.step.logs.values()
        trained = {row: self.trial_rows[row].with_numbers(values) for row, values in enumerate(logged)}
        return _Epoch(val, part, trained)

    def _evaluated_with_hooks(self, row_modules: RowModules) -> _Epoch:
        for trial_row in self.trial_rows:
            trial_row.advance("epoch", trial_row.epoch + 1)
        sets = self.evaluation.sets(self.rows, self.trial_rows)
        val = row_modules.validate(self.trial_rows, self.rows, sets["val"])
        training = {row: each for row, each in enumerate(self.trial_rows) if each.trains}
        trained = {row: row_modules.end_epoch(each) for row, each in training.items()}
        part = row_modules.measure(self.trial_rows, self.rows, sets["part"], self._due())
        return _Epoch(val, part, trained)

    def _due(self) -> set[int]:
        """Return the rows whose trials measure the train loss with dropout off after this epoch."""
        return {
            row
            for row, each in enumerate(self.trial_rows)
            if self.settings.measures_part(each.spec, self.data, each.epoch, each.curve)
        }

    def _report(self, metrics: Mapping[int, EpochMetrics]) -> list[int]:
        """Report an epoch of each row and tell the trials that ended, in the order of their rows; return these rows."""
        results, reported = {}, []
        for row, point in metrics.items():
            trial_row = self.trial_rows[row]
            least = trial_row.least_objective
            trial_row.curve.append(point)
            trial_row.epoch += 1
            if not math.isfinite(point.objective) or not math.isfinite(point.train_loss_as_trained):
                results[row] = self.source.result(trial_row, "FAIL", diverged(point, self.settings.monitor))
                continue
            if point.objective < least and trial_row.keeps_best:
                trial_row.best = trial_row.validated or self.rows.weights(trial_row.module)
            reported.append(row)
        prunes = self.feed.report([(self.trial_rows[row].spec, metrics[row]) for row in reported])
        for row, prune in zip(reported, prunes, strict=True):
            trial_row = self.trial_rows[row]
            # A trial after its last epoch is complete and not pruned.
            if self.row_modules is not None:
                self.row_modules.watch(trial_row)
            if trial_row.epoch == self.settings.max_epochs:
                results[row] = self.source.result(trial_row, "COMPLETE", "")
            elif prune:
                results[row] = self.source.result(trial_row, "PRUNED", f"pruned after epoch {trial_row.epoch}")
            elif self.row_modules is None:
                trial_row.advance("epoch", trial_row.epoch)
            if self.row_modules is not None and row in results:
                self.row_modules.end(trial_row)
                if trial_row.error is not None:
                    del results[row]
        ended = sorted(results)
        self._ended += len(ended)
        if ended:
            self.feed.tell([results[row] for row in ended])
        return ended

    def _replace(self, ended: list[int]) -> None:
        """Put the next trials into the free rows; if there are too few, narrow the stacked state."""
        idle = [row for row, trial_row in enumerate(self.trial_rows) if trial_row.is_idle]
        free = sorted([*ended, *idle])
        trial_rows = self.source.ask(len(free) + self._missing, self._spare_memory)
        for row, trial_row in zip(free, trial_rows, strict=False):
            self.trial_rows[row] = trial_row
            self._fill(row)
        for row in free[len(trial_rows) :]:
            self.trial_rows[row].is_idle = True
        if more := trial_rows[len(free) :]:
            self._widen(more)
        self._missing = self._width - len(self.trial_rows) if self.feed.held else 0
        training = [row for row, trial_row in enumerate(self.trial_rows) if not trial_row.is_idle]
        if len(training) <= self._narrowing_share * len(self.trial_rows) and len(training) < len(self.trial_rows):
            self._narrow(training)
        if (free or more) and self.trial_rows:
            self.step.refresh(self.trial_rows)

    @property
    def _narrowing_share(self) -> float:
        """The share of busy rows at which the state is narrowed: with CUDA graphs, narrowing costs a new capture."""
        return 0.5 if uses_cuda_graphs(self.rows.flat.device) else 1.0

    def _widen(self, more: list[TrialRow]) -> None:
        kept = len(self.trial_rows)
        self.trial_rows += more
        for trial_row in more:  # before they are bound: `setup` may build layers
            self._attach(trial_row)
        self._resize([*range(kept), *(0 for _ in more)])
        for row in range(kept, len(self.trial_rows)):
            self._fill(row)

    def _resize(self, sources: list[int]) -> None:
        """Give each trial its row of a new state, where row i was row `sources[i]`."""
        self.rows = self.rows.resized([trial_row.module for trial_row in self.trial_rows])
        self.step.resize(self.rows, self.trial_rows, sources)

    def _narrow(self, remaining: list[int]) -> None:
        self.trial_rows[:] = [self.trial_rows[row] for row in remaining]
        if not self.trial_rows:
            self.trainer.should_stop = True
            return
        self._resize(remaining)


def free_gpu_memory(on_gpu: bool) -> None:
    """Free the GPU memory of unused `VectorizedTrials`, which form reference cycles with their Trainer."""
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()
