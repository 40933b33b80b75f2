"""Validation of all rows with the hooks of their modules, on the validation set and on a part of the training set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from typing import Any

from dropsearch.core.contents import tensors_kept
from dropsearch.dropout.trial_control import TRAINING_PART, VALIDATION
from dropsearch.training.adapters.validation_copy import module_copy
from dropsearch.training.logged_steps import in_eval_mode
from dropsearch.training.vectorized.row_evaluation import EvaluationNoise, EvaluationSet
from dropsearch.training.vectorized.row_hooks import RowHooks, view_of
from dropsearch.training.vectorized.row_stacks import RowStack
from dropsearch.training.vectorized.row_trainer import RowTrainer
from dropsearch.training.vectorized.stacked_state import RowsPart, StackedState
from dropsearch.training.vectorized.step_logs import RowLog
from dropsearch.training.vectorized.trial_row import TrialRow
from dropsearch.training.vectorized.vmap_runner import VmapRunner
from dropsearch.training.vectorized.watched_parts import watched_parts

Values = dict[str, float]


class RowValidation:
    """Validates the modules of rows."""

    def __init__(
        self,
        hooks: RowHooks,
        runner: VmapRunner,
        make_trainer: Callable[[Any], RowTrainer],
        noise: EvaluationNoise,
    ) -> None:
        self._hooks, self._runner, self._make_trainer, self._noise = hooks, runner, make_trainer, noise

    def validate(self, trial_rows: Sequence[TrialRow], rows: StackedState, batches: EvaluationSet) -> dict[int, Values]:
        """Validate all rows with their hooks; return the logged values of each."""
        modules, found = {row: each for row, each in enumerate(trial_rows) if each.trains}, {}
        with self._validating(modules.values()):
            logs = self._pass(modules, trial_rows, rows, batches, VALIDATION)
            for row, trial_row in modules.items():
                with trial_row.raising_alone():
                    found[row] = logs[row].values()
                    view_of(trial_row).take(found[row])
                    self._hooks.run(trial_row, "on_validation_end", log=logs[row])
                    logs[row].reset()
        return found

    def measure(
        self, trial_rows: Sequence[TrialRow], rows: StackedState, batches: EvaluationSet, due: Set[int]
    ) -> dict[int, Values]:
        """Validate twins of the modules of the rows `due` on other batches; return the logged values of each."""
        rows_due = [row for row in sorted(due) if trial_rows[row].trains]
        if not rows_due:
            return {}
        # Twins share the weights, and their hooks may put others in their place.
        weights = [rows.flat, *rows.buffers.values()] if self._hooks.names else []
        with ExitStack() as stack:
            twins = {row: stack.enter_context(self._twin(trial_rows[row])) for row in rows_due}
            stack.enter_context(self._validating(twins.values()))
            stack.enter_context(tensors_kept(weights))
            logs, found = self._pass(twins, trial_rows, rows, batches, TRAINING_PART), {}
            for row, log in logs.items():
                with twins[row].raising_alone():
                    found[row] = log.values()
                trial_rows[row].error = trial_rows[row].error or twins[row].error
        return found

    def _pass(
        self,
        modules: dict[int, TrialRow],
        trial_rows: Sequence[TrialRow],
        rows: StackedState,
        batches: EvaluationSet,
        of: str,
    ) -> dict[int, RowLog]:
        logs = {row: RowLog(training=False) for row in modules}
        for row, trial_row in modules.items():
            view_of(trial_row).now(_log=logs[row])
        for hook in ("on_validation_start", "on_validation_epoch_start"):
            for row, trial_row in modules.items():
                self._hooks.run(trial_row, hook, log=logs[row])
        for index, batch in batches:
            stack, self._runner.batch_idx = batch.cast(rows.flat.dtype), index
            for row in (row for row in stack.rows if row in modules):
                logs[row].batch_size = stack.size
                self._hooks.run(modules[row], "on_validation_batch_start", stack.of(row), index, log=logs[row])

            def step(
                group: list[int], part: StackedState | RowsPart, stack: RowStack = stack, index: int = index
            ) -> None:
                own = stack.part(group)
                noise = self._noise.of([trial_rows[row] for row in group], of, stack, rows.flat)
                self._runner.modules = [modules.get(row, trial_rows[row]).module for row in group]
                self._runner.evaluate(part, own.examples, noise, form=own.form)
                for row, effects in self._runner.effects_of(group):
                    if row in modules:
                        logs[row].batch_size, logs[row].hook = stack.size, ""
                        with modules[row].raising_alone():
                            returned = effects(modules[row].module, logs[row].log)
                            given = returned, stack.of(row), index
                            self._hooks.run(modules[row], "on_validation_batch_end", *given, log=logs[row])

            self._runner.in_groups(trial_rows, rows, step, stack.rows)
            self._noise.count([modules[row] for row in stack.rows if row in modules], of)
        for row, trial_row in modules.items():
            if trial_row.keeps_best and of == VALIDATION and self._may_change_weights(trial_row):
                trial_row.validated = rows.weights(trial_row.module)
            self._hooks.run(trial_row, "on_validation_epoch_end", log=logs[row])
        return logs

    def _may_change_weights(self, trial_row: TrialRow) -> bool:
        """Return whether anything runs between a row's validation and its report."""
        hooks = ("on_validation_epoch_end", "on_validation_end", "on_train_epoch_end")
        return bool(trial_row.callbacks) or any(map(self._hooks.overrides, hooks))

    @contextmanager
    def _validating(self, trial_rows: Any) -> Iterator[None]:
        with ExitStack() as stack:
            for trial_row in trial_rows:
                view = view_of(trial_row)
                view.now(training=False, validating=True)
                stack.callback(view.now, training=True, validating=False, _log=None)
                if self._hooks.names:
                    stack.enter_context(in_eval_mode(trial_row.module))
            yield

    @contextmanager
    def _twin(self, trial_row: TrialRow) -> Iterator[TrialRow]:
        """Yield a row with a copy of the module, which has the weights, and metric objects with other states."""
        with module_copy(trial_row.module) as module:
            twin = copy.copy(trial_row)
            twin.module, twin.view, twin.callbacks = module, self._make_trainer(module), ()
            twin.parts = watched_parts(module)
            twin.view.now(current_epoch=trial_row.epoch, global_step=0)
            module.trainer = twin.view
            yield twin
