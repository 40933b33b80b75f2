"""The trials of a feed as rows: their modules and loaders at the start, their results at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning import LightningModule

from dropsearch.core.errors import InputError, RunError, UnsupportedError
from dropsearch.core.global_state import seeded
from dropsearch.core.records import State, TrialResult, TrialSpec
from dropsearch.core.user_errors import described
from dropsearch.training.adapters.checkpoints import save_checkpoint
from dropsearch.training.adapters.layers import build_in_hooks, builds_in_hooks
from dropsearch.training.logged_steps import in_precision, runs_aside, set_to_train
from dropsearch.training.protocols import CheckpointPath, DataSource, Feed, TrainerSettings, validates_by_row
from dropsearch.training.sequential import ModuleFactory
from dropsearch.training.trainers import as_list, bare_trainer, batches_in, quiet_lightning
from dropsearch.training.vectorized.observation import traits_of
from dropsearch.training.vectorized.row_trainer import RowTrainer
from dropsearch.training.vectorized.step_traits import StepTraits
from dropsearch.training.vectorized.trial_row import TrialRow


@dataclass(eq=False)
class RowSource:
    """Makes rows of the trials of a feed, and results of rows."""

    make_module: ModuleFactory
    data: DataSource
    settings: TrainerSettings
    feed: Feed
    checkpoint_path: CheckpointPath = lambda _: None

    def __post_init__(self) -> None:
        settings = self.settings
        # A module that builds a schedule may read the number of steps from its Trainer.
        given = settings.max_epochs, settings.accumulation, settings.accelerator
        self._trainer = bare_trainer(self.data.train_loader(0), *given)
        if settings.accumulation > 1 and self._trainer.estimated_stepping_batches == -1:
            why = "with a loader that does not know its length works with sequential training only"
            raise UnsupportedError(f"trainer.accumulate_grad_batches {why}")

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.settings.precision == "64-true" else torch.float32

    def module(self, spec: TrialSpec) -> LightningModule:
        """Build a trial's module with the layers that its hooks build; its Trainer knows the number of steps."""
        module = self.make_module(spec)
        if builds_in_hooks(module):
            module.trainer = self.row_trainer(module)  # type: ignore[assignment]
            with seeded(spec.seed):  # as a fit begins
                build_in_hooks(module, self._dtype)
        module.trainer = self._trainer
        return module

    def row_trainer(self, module: LightningModule) -> RowTrainer:
        """Return what a module sees as its Trainer."""
        return RowTrainer(self._trainer, module, self.data, self.data.train_loader(0))

    def traits(self, spec: TrialSpec, dtype: torch.dtype) -> StepTraits:
        """Return the traits of the steps of a trial's module."""
        module = in_precision(self.make_module(spec), dtype)
        has_callbacks = bool(as_list(self.settings.trainer().get("callbacks")))
        if runs_aside(module) and not has_callbacks:
            return StepTraits()
        with quiet_lightning():
            traits = traits_of(module, self.row_trainer, self.data, dtype=dtype)
        traits.has_callbacks = has_callbacks
        return traits

    def ask(self, count: int, spare_memory: Callable[[TrialRow, TrialRow], None]) -> list[TrialRow]:
        """Ask the feed for trials and build their modules; tell those as failed that cannot be built."""
        trial_rows: list[TrialRow] = []
        while (
            len(trial_rows) < count and not self.feed.cancelled() and (specs := self.feed.ask(count - len(trial_rows)))
        ):
            failed = []
            for spec in specs:
                try:
                    trial_rows.append(self._trial_row(spec))
                    spare_memory(trial_rows[-1], trial_rows[0])
                except (InputError, RunError, UnsupportedError, torch.cuda.OutOfMemoryError):
                    raise
                except Exception as error:
                    failed.append(TrialResult(spec, "FAIL", (), 0.0, described(error)))
            if failed:
                self.feed.tell(failed)
        return trial_rows

    def _trial_row(self, spec: TrialSpec) -> TrialRow:
        data, seed = self.data.for_trial(spec), self.settings.batch_seed(spec)
        loader = data.train_loader(seed)
        count = batches_in(loader)
        return TrialRow(
            spec,
            set_to_train(self.module(spec)),
            data,
            loader,
            time.perf_counter(),
            batches=int(count) if count < math.inf else None,
            val_loader=data.val_loader(seed) if validates_by_row(data) else None,  # type: ignore[attr-defined]
            keeps_best=self.checkpoint_path(spec) is not None,
            callbacks=as_list(self.settings.trainer().get("callbacks")),
        )

    def result(self, trial_row: TrialRow, state: State, reason: str) -> TrialResult:
        """Return the result of a trial; save the weights of a complete one first."""
        path = self.checkpoint_path(trial_row.spec) if state == "COMPLETE" else None
        sha256 = self._save(trial_row, path) if path is not None and trial_row.best is not None else ""
        seconds = time.perf_counter() - trial_row.started
        return TrialResult(
            trial_row.spec, state, tuple(trial_row.curve), seconds, reason, str(path or ""), sha256, trial_row.lr_used
        )

    def _save(self, trial_row: TrialRow, path: Path) -> str:
        module = in_precision(self.module(trial_row.spec), self._dtype)
        module.load_state_dict(trial_row.best or {})
        self._trainer.strategy.connect(module)
        return save_checkpoint(self._trainer, path)
