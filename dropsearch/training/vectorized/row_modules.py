"""Work of each row's module outside of `vmap`: hooks, metric objects, logging and attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from dropsearch.core.errors import UnsupportedError
from dropsearch.core.records import TrialSpec
from dropsearch.core.user_errors import place_of_method
from dropsearch.training.vectorized.row_evaluation import EvaluationNoise
from dropsearch.training.vectorized.row_hooks import RowHooks, view_of
from dropsearch.training.vectorized.row_trainer import RowTrainer
from dropsearch.training.vectorized.row_validation import RowValidation, Values
from dropsearch.training.vectorized.step_logs import RowLog
from dropsearch.training.vectorized.step_traits import StepTraits
from dropsearch.training.vectorized.trial_row import TrialRow
from dropsearch.training.vectorized.vmap_runner import VmapRunner

RowBatch = Callable[[int], Any]


class RowModules:
    """Runs the hooks of rows and applies the effects of their steps."""

    def __init__(
        self,
        traits: StepTraits,
        runner: VmapRunner,
        make_trainer: Callable[[Any], RowTrainer],
        noise: EvaluationNoise,
        seed_of: Callable[[TrialSpec], int],
    ) -> None:
        self._runner, self._make_trainer = runner, make_trainer
        self._hooks = RowHooks(traits, seed_of)
        self.validation = RowValidation(self._hooks, runner, make_trainer, noise)
        self._results: dict[int, Any] = {}

    def attach(self, trial_row: TrialRow) -> RowTrainer:
        """Attach a Trainer to a row's module, which is set up, and set its callbacks up."""
        module = trial_row.module
        view = trial_row.view = self._make_trainer(module)
        module.trainer = view  # type: ignore[assignment]
        trial_row.log = RowLog(training=True)
        view.now(callbacks=trial_row.callbacks)
        self._hooks.run_callbacks(trial_row, "setup", "fit")
        return view

    def start(self, trial_row: TrialRow, optimizer: Any) -> None:
        """Run the hooks of a row at the start of its training."""
        view_of(trial_row).now(optimizers=[optimizer], lr_scheduler_configs=trial_row.schedules)
        for hook in ("on_fit_start", "on_train_start"):
            self._hooks.run(trial_row, hook)

    def begin_epoch(self, trial_rows: Sequence[TrialRow]) -> None:
        """Run the hooks of all rows at the start of an epoch."""
        for trial_row in (each for each in trial_rows if each.trains):
            view_of(trial_row).now(current_epoch=trial_row.epoch, global_step=trial_row.updates)
            self._hooks.run(trial_row, "on_train_epoch_start")

    def begin_batch(self, trial_rows: Sequence[TrialRow], rows: Sequence[int], batch: RowBatch) -> None:
        """Run the hook of each of `rows` before their training step."""
        if "on_train_batch_start" in self._hooks.names:
            for row, trial_row in _training_rows(trial_rows, rows):
                if self._hooks.run(trial_row, "on_train_batch_start", batch(row), self._runner.batch_idx) == -1:
                    place = place_of_method(trial_row.module, "on_train_batch_start")
                    raise UnsupportedError(f"on_train_batch_start ends an epoch early{place}")

    def before_backward(self, trial_rows: Sequence[TrialRow], losses: Mapping[int, Tensor], *, is_first: bool) -> None:
        """Run the hooks of each row between its training step and its gradients, which begin anew with the first."""
        for row, trial_row in _training_rows(trial_rows, losses):
            if is_first:
                self._hooks.run(trial_row, "on_before_zero_grad", *view_of(trial_row).optimizers)
            self._hooks.run(trial_row, "on_before_backward", losses[row])

    def after_backward(self, trial_rows: Sequence[TrialRow], rows: Iterable[int], due: Sequence[int]) -> None:
        """Run the hooks of each row between its gradients and its optimizer's step, if that is due."""
        for row, trial_row in _training_rows(trial_rows, rows):
            self._hooks.run(trial_row, "on_after_backward")
            if row in due:
                self._hooks.run(trial_row, "on_before_optimizer_step", *view_of(trial_row).optimizers)

    def end_batch(self, trial_rows: Sequence[TrialRow], rows: Sequence[int], batch: RowBatch) -> None:
        """Run the hook of each row after a training step."""
        for row, trial_row in _training_rows(trial_rows, rows):
            view_of(trial_row).now(global_step=trial_row.updates)
            self._hooks.run_callbacks(trial_row, "on_train_batch_end", None, None, self._runner.batch_idx)
            if self._hooks.overrides("on_train_batch_end"):
                outputs = self._results[row]
                outputs = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
                given = outputs, batch(row), self._runner.batch_idx
                self._hooks.run_own(trial_row, "on_train_batch_end", *given)

    def trained(self, trial_rows: Sequence[TrialRow], rows: Sequence[int], size: int) -> None:
        """Apply the effects of the last training step to each of `rows`."""
        for row, effects in self._runner.effects_of(rows):
            trial_row = trial_rows[row]
            if not trial_row.is_idle:
                assert trial_row.log is not None
                trial_row.log.batch_size, trial_row.log.hook = size, ""
                with trial_row.raising_alone():
                    self._results[row] = effects(trial_row.module, trial_row.log.log)

    @property
    def may_change_gradients(self) -> bool:
        """Whether a hook runs between the gradients and the optimizer's step."""
        return self._hooks.overrides("on_after_backward") or self._hooks.overrides("on_before_optimizer_step")

    def end_epoch(self, trial_row: TrialRow, validated: Values) -> Values:
        """Run the hook at the end of a row's epoch; return the row's values logged in training and hooks.

        `validated` are the values that the row's validation of this epoch logged.
        """
        assert trial_row.log is not None
        view, logged = view_of(trial_row), {}
        with trial_row.raising_alone():
            view.take(trial_row.log.values(validated))
            self._hooks.run(trial_row, "on_train_epoch_end")
            logged = trial_row.log.values(validated)
            view.take(logged)
            trial_row.log.reset()
        return logged

    def watch(self, trial_row: TrialRow) -> None:
        """Step a row's schedules that monitor a metric, at the end of its epoch."""
        metrics = {name: float(value) for name, value in view_of(trial_row).callback_metrics.items()}
        trial_row.advance("epoch", trial_row.epoch, metrics)

    def end(self, trial_row: TrialRow) -> None:
        """Run the hooks of a row at the end of its training."""
        for hook, *args in (("on_train_end",), ("on_fit_end",), ("teardown", "fit")):
            self._hooks.run(trial_row, hook, *args)


def _training_rows(trial_rows: Sequence[TrialRow], rows: Iterable[int]) -> Iterator[tuple[int, TrialRow]]:
    return ((row, trial_rows[row]) for row in rows if trial_rows[row].trains)
