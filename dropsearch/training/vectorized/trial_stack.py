"""Trials as rows of stacked tensors: building the rows, filling them with further trials, changing their number."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from dropsearch.core.batches import cast
from dropsearch.training.logged_steps import in_precision, runs_aside
from dropsearch.training.protocols import is_in_memory, validates_by_row
from dropsearch.training.vectorized.device_step import DeviceStep, uses_cuda_graphs
from dropsearch.training.vectorized.flat_optimizers import flat_optimizer
from dropsearch.training.vectorized.held_once import equal_in_all, use_frozen
from dropsearch.training.vectorized.observation import FirstSteps, begin
from dropsearch.training.vectorized.row_batches import LockstepBatches, MemoryBatches, RowBatches
from dropsearch.training.vectorized.row_evaluation import LOADERS, EvaluationNoise, ReadSet, RowEvaluation
from dropsearch.training.vectorized.row_modules import RowModules
from dropsearch.training.vectorized.row_optimizers import configure_optimizer, optimized_columns, parameter_order
from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.row_trainer import StepTrainer, rates_of
from dropsearch.training.vectorized.row_validation import Values
from dropsearch.training.vectorized.stacked_state import StackedState
from dropsearch.training.vectorized.step import HostStep, VectorizedStep
from dropsearch.training.vectorized.step_traits import StepTraits
from dropsearch.training.vectorized.trial_row import TrialRow
from dropsearch.training.vectorized.vmap_modes import disable_flatten_parameters
from dropsearch.training.vectorized.vmap_runner import VmapRunner
from dropsearch.training.vectorized.watched_parts import differing_attributes, unsupported


class EpochValues(NamedTuple):
    """Logged values of an epoch, by row."""

    val: dict[int, Values]
    part: dict[int, Values]
    trained: dict[int, Values]
    """Values logged in training steps, and in hooks outside of validation."""


class TrialStack:
    """The trials that train now, as rows of stacked tensors, and the step and the evaluation of these rows.

    Of a feed without trials there are only `trial_rows` and `batches`. With `holds_once`, rows share frozen parts that
    are equal in all trials.
    """

    def __init__(self, source: RowSource, width: int, *, holds_once: bool = True) -> None:
        self.source, self.data, self.settings, self.feed = source, source.data, source.settings, source.feed
        self._may_hold_once = holds_once
        self._width = min(width, self.feed.most_at_once or width)
        self.row_modules: RowModules | None = None
        self.trial_rows: list[TrialRow] = []
        self.trial_rows = source.ask(self._width, self._spare_memory)
        self._missing = self._width - len(self.trial_rows) if self.feed.held else 0
        """Number of rows to add as soon as the feed has trials for them."""
        self.batches = self._batches()
        if self.trial_rows:
            self._build()

    @property
    def holds_once(self) -> bool:
        """Whether rows share frozen parts."""
        return bool(self.trial_rows) and bool(self.rows.shared)

    @property
    def busy(self) -> list[int]:
        """The rows that train a trial; the others are idle."""
        return [row for row, trial_row in enumerate(self.trial_rows) if not trial_row.is_idle]

    def state(self) -> list[Tensor]:
        """Return the tensors that exist between steps."""
        rows = self.rows
        held = [rows.flat, rows.gradients, *rows.buffers.values(), *rows.shared.values()]
        return [*held, *self.step.state(self.trial_rows)]

    # -- building rows

    def _spare_memory(self, trial_row: TrialRow, first: TrialRow) -> None:
        """Share the frozen parts of another module with a new one."""
        if self._may_hold_once:
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
        for trial_row in () if runs_aside(skeleton) else self.trial_rows[1:]:
            traits.carried |= differing_attributes(first.module, trial_row.module)
        if not traits.is_plain:
            skeleton.trainer = self.source.row_trainer(skeleton)  # type: ignore[assignment]
            begin(skeleton, traits)
        if not runs_aside(skeleton):
            self._attach_step(skeleton, traits)
        skeleton = in_precision(skeleton, dtype)
        self.runner = VmapRunner(skeleton, self.settings.precision, self.settings.convolutions, traits)
        noise = EvaluationNoise(
            lambda batch: self.runner.evaluation_shapes(cast(batch, dtype), first.spec.rates),
            self.settings.mask_seed,
        )
        if not traits.is_plain:
            self._may_hold_once &= not traits.has_callbacks  # averages change all parts by a rounding
            self.row_modules = RowModules(traits, self.runner, self.source.row_trainer, noise, self.settings.mask_seed)
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
        noise.draws |= traits.draws_in_python
        self.evaluation = RowEvaluation(self.runner, shared, noise, use_cuda_graph=uses_cuda_graphs(device))
        disable_flatten_parameters(skeleton)
        self.step = self._make_step(first.module, optimizer)
        self.step.row_modules = self.row_modules
        for row in range(len(self.trial_rows)):
            self._fill(row)
        self.step.refresh(self.trial_rows)

    def _attach_step(self, skeleton: LightningModule, traits: StepTraits) -> None:
        """Attach the Trainer of steps; its rates are those of the first trial where steps of one row run."""
        trainer = self.source.row_trainer(skeleton)
        stepping = StepTrainer(trainer)
        if not traits.is_plain:
            optimizer, schedules = configure_optimizer(skeleton)
            trainer.now(optimizers=[optimizer], lr_scheduler_configs=schedules)
            stepping.rates = rates_of(trainer)
        stepping.attach(skeleton)

    def _shared_parts(self) -> dict[str, Tensor]:
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
        self._require_loaded(trial_row.module)
        self.rows.bind(row, trial_row.module)
        disable_flatten_parameters(trial_row.module)
        trial_row.module.to(self.rows.flat.device)  # sets `module.device`
        optimizer, trial_row.schedules = configure_optimizer(trial_row.module)
        trial_row.groups = optimizer.param_groups
        self.step.fill(row, trial_row, optimizer)
        if self.row_modules is not None:
            self.row_modules.start(trial_row, optimizer)

    def _require_loaded(self, module: LightningModule) -> None:
        """Let steps load the attributes in which a module differs from the one that runs the steps."""
        runner = self.runner
        if runs_aside(runner.skeleton):
            return
        found = differing_attributes(runner.skeleton, module)
        if self.row_modules is not None:
            runner.traits.carried |= found
        for attribute in found if self.row_modules is None else ():
            raise unsupported(module, attribute, "{} differs between trials, as it did not in the first ones")

    def _attach(self, trial_row: TrialRow) -> None:
        """Set a row's module up, unless it is or needs no Trainer of its own."""
        if self.row_modules is not None and trial_row.view is None:
            self.row_modules.attach(trial_row)

    # -- evaluation

    def evaluate(self) -> dict[str, list[float]]:
        """Return the values that each row logs on the validation set."""
        self.evaluation.launch(self.rows, self.trial_rows, set())
        return self.evaluation.means()["val"]

    def evaluated(self) -> EpochValues:
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
        replaced = self.step.logs.of_steps & {name for values in val.values() for name in values}
        trained = {
            row: {name: each for name, each in values.items() if name not in replaced}
            for row, values in enumerate(logged)
        }
        return EpochValues(val, part, trained)

    def _evaluated_with_hooks(self, row_modules: RowModules) -> EpochValues:
        for trial_row in self.trial_rows:
            trial_row.advance("epoch", trial_row.epoch + 1)
        sets = self.evaluation.sets(self.rows, self.trial_rows)
        val = row_modules.validation.validate(self.trial_rows, self.rows, sets["val"])
        training = {row: each for row, each in enumerate(self.trial_rows) if each.trains}
        trained = {row: row_modules.end_epoch(each, val[row]) for row, each in training.items()}
        part = row_modules.validation.measure(self.trial_rows, self.rows, sets["part"], self._due())
        return EpochValues(val, part, trained)

    def _due(self) -> set[int]:
        every = getattr(self.data, "part_every", 1)
        return {
            row
            for row, each in enumerate(self.trial_rows)
            if self.settings.measures_part(each.spec, every, each.epoch, each.curve)
        }

    # -- changing the trials

    def replace(self, ended: list[int]) -> None:
        """Put the next trials into the free rows; if there are too few, narrow the stacked state."""
        free = sorted({*range(len(self.trial_rows))} - {*self.busy} | {*ended})
        trial_rows = self.source.ask(len(free) + self._missing, self._spare_memory)
        for row, trial_row in zip(free, trial_rows, strict=False):
            self.trial_rows[row] = trial_row
            self._fill(row)
        for row in free[len(trial_rows) :]:
            self.trial_rows[row].is_idle = True
        if more := trial_rows[len(free) :]:
            self._widen(more)
        self._missing = self._width - len(self.trial_rows) if self.feed.held else 0
        if len(self.busy) <= self._narrowing_share * len(self.trial_rows) and len(self.busy) < len(self.trial_rows):
            self._narrow(self.busy)
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
        if self.trial_rows:
            self._resize(remaining)
