"""Work of each row's module outside of `vmap`: hooks, metric objects, logging and attributes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dropsearch._compat.lightning import logging_to
from dropsearch._compat.torchmetrics import is_metric
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.global_state import generator_states
from dropsearch.dropout.trial_control import TRAINING_PART, VALIDATION
from dropsearch.training.logged_steps import Modes
from dropsearch.training.vectorized.effects import apply, logged_indices
from dropsearch.training.vectorized.evaluation_noise import EvaluationNoise
from dropsearch.training.vectorized.evaluation_sets import EvaluationBatch, EvaluationSet
from dropsearch.training.vectorized.row_trainer import RowTrainer
from dropsearch.training.vectorized.stacked_state import RowsPart, StackedState
from dropsearch.training.vectorized.step_logs import RowLog, number
from dropsearch.training.vectorized.step_traits import BATCH_HOOKS, StepTraits
from dropsearch.training.vectorized.trainer_arguments import RowCallbacks
from dropsearch.training.vectorized.trial_row import TrialRow
from dropsearch.training.vectorized.vmap_runner import VmapRunner

Values = dict[str, float]
"""Logged values of a row in a pass, by name."""
RowBatch = Callable[[int], Any]
"""Returns the batch of a row."""


class RowModules:
    """Runs the hooks of rows and applies the effects of their steps.

    Args:
        traits: The traits of the module's steps.
        runner: Runs steps of all rows.
        make_trainer: Returns the Trainer of a row's module.
        noise: Draws the random bits of validation steps.
        callbacks: The callbacks of each row.
    """

    def __init__(
        self,
        traits: StepTraits,
        runner: VmapRunner,
        make_trainer: Callable[[Any], RowTrainer],
        noise: EvaluationNoise,
        callbacks: RowCallbacks,
    ) -> None:
        self._traits, self._runner, self._make_trainer, self._noise = traits, runner, make_trainer, noise
        self._callbacks = callbacks
        self._results: dict[int, Any] = {}

    def attach(self, trial_row: TrialRow) -> RowTrainer:
        """Attach a Trainer to a row's module and set the module up."""
        module = trial_row.module
        view = trial_row.view = self._make_trainer(module)
        module.trainer = view  # type: ignore[assignment]
        trial_row.log = RowLog(training=True)
        view.now(callbacks=self._callbacks.attach(trial_row))
        self._hook(trial_row, "setup", "fit")
        return view

    def start(self, trial_row: TrialRow, optimizer: Any) -> None:
        """Run the hooks of a row at the start of its training."""
        _view(trial_row).now(optimizers=[optimizer])
        for hook in ("on_fit_start", "on_train_start"):
            self._hook(trial_row, hook)

    def begin_epoch(self, trial_rows: Sequence[TrialRow]) -> None:
        """Run the hooks of all rows at the start of an epoch."""
        for trial_row in _training(trial_rows):
            _view(trial_row).now(current_epoch=trial_row.epoch, global_step=trial_row.updates)
            self._hook(trial_row, "on_train_epoch_start")

    def begin_batch(self, trial_rows: Sequence[TrialRow], rows: Sequence[int], batch: RowBatch) -> None:
        """Run the hook of each of `rows` before their training step."""
        if "on_train_batch_start" in self._traits.hooks:
            for row, trial_row in _training_rows(trial_rows, rows):
                if self._hook(trial_row, "on_train_batch_start", batch(row), self._runner.batch_idx) == -1:
                    raise UnsupportedError("on_train_batch_start ends an epoch early")

    def before_backward(self, trial_rows: Sequence[TrialRow], losses: Mapping[int, Tensor], *, is_first: bool) -> None:
        """Run the hooks of each row between its training step and its gradients, which begin anew with the first."""
        for row, trial_row in _training_rows(trial_rows, losses):
            if is_first:
                self._hook(trial_row, "on_before_zero_grad", *_view(trial_row).optimizers)
            self._hook(trial_row, "on_before_backward", losses[row])

    def after_backward(self, trial_rows: Sequence[TrialRow], rows: Iterable[int], due: Sequence[int]) -> None:
        """Run the hooks of each row between its gradients and its optimizer's step, if that is due."""
        for row, trial_row in _training_rows(trial_rows, rows):
            self._hook(trial_row, "on_after_backward")
            if row in due:
                self._hook(trial_row, "on_before_optimizer_step", *_view(trial_row).optimizers)

    def end_batch(self, trial_rows: Sequence[TrialRow], rows: Sequence[int], batch: RowBatch) -> None:
        """Run the hook of each row after a training step."""
        for row, trial_row in _training_rows(trial_rows, rows):
            _view(trial_row).now(global_step=trial_row.updates)
            self._callbacks.run(trial_row, "on_train_batch_end", None, None, self._runner.batch_idx)
            if self.has_hook("on_train_batch_end"):
                outputs = self._results[row]
                outputs = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
                given = outputs, batch(row), self._runner.batch_idx
                self._own_hook(trial_row, "on_train_batch_end", *given)

    def trained(self, trial_rows: Sequence[TrialRow], rows: Sequence[int], size: int) -> None:
        """Apply the effects of the last training step to each of `rows`."""
        for row, tensors in zip(rows, self._tensors(len(rows)), strict=True):
            trial_row = trial_rows[row]
            if not trial_row.is_idle:
                assert trial_row.log is not None
                trial_row.log.batch_size, trial_row.log.hook = size, ""
                with trial_row.raising_alone():
                    returned = apply(self._runner.effects, trial_row.module, tensors, trial_row.log_of_step)
                    self._results[row] = returned

    def validate(self, trial_rows: Sequence[TrialRow], rows: StackedState, batches: EvaluationSet) -> dict[int, Values]:
        """Validate all rows with their hooks; return the logged values of each."""
        modules, found = {row: each for row, each in enumerate(trial_rows) if each.trains}, {}
        with self._validating(modules.values()):
            logs = self._pass(modules, trial_rows, rows, batches, VALIDATION)
            for row, trial_row in modules.items():
                with trial_row.raising_alone():
                    found[row] = logs[row].values()
                    _view(trial_row).take(found[row])
                    self._hook(trial_row, "on_validation_end", log=logs[row])
                    logs[row].reset()
        return found

    def measure(
        self, trial_rows: Sequence[TrialRow], rows: StackedState, batches: EvaluationSet, due: Set[int]
    ) -> dict[int, Values]:
        """Validate twins of the modules of the rows `due` on other batches; return the logged values of each."""
        twins = {row: self._twin(trial_rows[row]) for row in sorted(due) if trial_rows[row].trains}
        if not twins:
            return {}
        with self._validating(twins.values()), self._weights_kept(rows):
            for twin in twins.values():
                self._hook(twin, "setup", "validate")
            logs, found = self._pass(twins, trial_rows, rows, batches, TRAINING_PART), {}
            for row, log in logs.items():
                with twins[row].raising_alone():
                    found[row] = log.values()
                trial_rows[row].error = trial_rows[row].error or twins[row].error
        return found

    @contextmanager
    def _weights_kept(self, rows: StackedState) -> Iterator[None]:
        """Restore all weights at the end, which twins share: their hooks may put others in their place."""
        held = [rows.flat, *rows.buffers.values()] if self._traits.hooks else []
        before = [each.clone() for each in held]
        try:
            yield
        finally:
            with torch.no_grad():
                for each, kept in zip(held, before, strict=True):
                    each.copy_(kept)

    def has_hook(self, name: str) -> bool:
        """Return whether the module overrides a hook."""
        return name in self._traits.hooks

    @property
    def may_change_gradients(self) -> bool:
        """Whether a hook runs between the gradients and the optimizer's step."""
        return self.has_hook("on_after_backward") or self.has_hook("on_before_optimizer_step")

    def end_epoch(self, trial_row: TrialRow) -> Values:
        """Run the hook at the end of a row's epoch; return the row's values logged in training and hooks."""
        assert trial_row.log is not None
        view, logged = _view(trial_row), {}
        with trial_row.raising_alone():
            view.take(trial_row.log.values())
            self._hook(trial_row, "on_train_epoch_end")
            logged = trial_row.log.values()
            view.take(logged)
            trial_row.log.reset()
        return logged

    def watch(self, trial_row: TrialRow) -> None:
        """Step a row's schedules that monitor a metric, at the end of its epoch."""
        metrics = {name: float(value) for name, value in _view(trial_row).callback_metrics.items()}
        trial_row.advance("epoch", trial_row.epoch, metrics)

    def end(self, trial_row: TrialRow) -> None:
        """Run the hooks of a row at the end of its training."""
        for hook, *args in (("on_train_end",), ("on_fit_end",), ("teardown", "fit")):
            self._hook(trial_row, hook, *args)

    def _pass(
        self,
        modules: dict[int, TrialRow],
        trial_rows: Sequence[TrialRow],
        rows: StackedState,
        batches: EvaluationSet,
        of: str,
    ) -> dict[int, RowLog]:
        logs = {row: RowLog(training=False) for row in modules}
        for hook in ("on_validation_start", "on_validation_epoch_start"):
            for row, trial_row in modules.items():
                self._hook(trial_row, hook, log=logs[row])
        for position, batch in enumerate(batches):
            index = position if batch.index is None else batch.index
            batch, self._runner.batch_idx = batch.to(rows.flat.dtype), index
            for row in (row for row in modules if batch.rows is None or row in batch.rows):
                logs[row].batch_size = batch.size
                self._hook(modules[row], "on_validation_batch_start", batch.row(row), index, log=logs[row])

            def step(
                group: list[int],
                part: StackedState | RowsPart,
                batch: EvaluationBatch = batch,
                index: int = index,
            ) -> None:
                own = batch.of(group, len(trial_rows))
                noise = self._noise.of([trial_rows[row] for row in group], of, batch, rows.flat)
                self._runner.evaluate(part, own.content, noise, form=own.form)
                for row, tensors in zip(group, self._tensors(len(group)), strict=True):
                    if row in modules:
                        logs[row].batch_size, logs[row].hook = batch.size, ""
                        with modules[row].raising_alone():
                            returned = apply(self._runner.effects, modules[row].module, tensors, logs[row].log)
                            given = returned, batch.row(row), index
                            self._hook(modules[row], "on_validation_batch_end", *given, log=logs[row])

            self._runner.in_groups(trial_rows, rows, step, batch.rows)
            self._noise.count([modules[row] for row in batch.rows or modules if row in modules], of)
        for row, trial_row in modules.items():
            if trial_row.keeps_best and of == VALIDATION and self._may_change_weights(trial_row):
                trial_row.validated = rows.weights(trial_row.module)
            self._hook(trial_row, "on_validation_epoch_end", log=logs[row])
        return logs

    def _may_change_weights(self, trial_row: TrialRow) -> bool:
        """Return whether anything runs between a row's validation and its report."""
        hooks = ("on_validation_epoch_end", "on_validation_end", "on_train_epoch_end")
        return bool(self._callbacks.of(trial_row)) or any(map(self.has_hook, hooks))

    def _tensors(self, count: int) -> list[list[Any]]:
        """Return the tensors of the last effects for each row; tensors that are only logged become numbers."""
        logged = logged_indices(self._runner.effects)
        columns = [
            numbers(tensor, count) if index in logged else tensor.unbind(0)
            for index, tensor in enumerate(self._runner.effect_tensors)
        ]
        return [[column[row] for column in columns] for row in range(count)]

    def _hook(self, trial_row: TrialRow, hook: str, *args: Any, log: RowLog | None = None) -> Any:
        """Run a hook of a row's callbacks and module; return the module's result."""
        self._callbacks.run(trial_row, hook, *args)
        return self._own_hook(trial_row, hook, *args, log=log)

    def _own_hook(self, trial_row: TrialRow, hook: str, *args: Any, log: RowLog | None = None) -> Any:
        """Run a hook of a row's module if it overrides it and raised no error; return the hook's result."""
        if not self.has_hook(hook) or trial_row.error is not None:
            return None
        log, module = log or trial_row.log, trial_row.module
        assert log is not None
        log.hook = hook
        if hook not in BATCH_HOOKS:
            log.batch_size = None
        states, trained = generator_states(), [p.requires_grad for p in module.parameters()]
        modes = [part.training for part in module.modules()]
        grad = torch.enable_grad() if log is trial_row.log else torch.no_grad()
        returned = None
        with logging_to(module, log.log, log.log_dict), grad, trial_row.raising_alone():
            returned = call_hook(getattr(module, hook), args)
        if generator_states() != states:
            raise UnsupportedError(f"{hook} draws random numbers")
        if [p.requires_grad for p in module.parameters()] != trained:
            raise UnsupportedError(f"{hook} freezes or unfreezes parameters")
        if [part.training for part in module.modules()] != modes:
            raise UnsupportedError(f"{hook} changes the mode of a part of the module")
        return returned

    @contextmanager
    def _validating(self, trial_rows: Any) -> Iterator[None]:
        """Set evaluation mode for hooks."""
        trial_rows = list(trial_rows)
        modes = [Modes(trial_row.module) for trial_row in trial_rows] if self._traits.hooks else []
        for trial_row in trial_rows:
            _view(trial_row).now(training=False, validating=True)
            if modes:
                trial_row.module.eval()
        try:
            yield
        finally:
            for mode in modes:
                mode.put_back()
            for trial_row in trial_rows:
                _view(trial_row).now(training=True, validating=False)

    def _twin(self, trial_row: TrialRow) -> TrialRow:
        """Return a row whose module shares the weights, with separate metric objects and containers."""
        module, view = trial_row.module, _view(trial_row)
        inside = {id(t) for part in module.modules() if is_metric(part) for t in part.buffers()}
        weights = [*module.parameters(), *(b for b in module.buffers() if id(b) not in inside)]
        twin_module = copy.deepcopy(module, {**{id(each): each for each in weights}, id(view): view})
        for part in twin_module.modules():
            if is_metric(part):
                part.reset()  # type: ignore[operator]
        twin = copy.copy(trial_row)
        twin.module, twin.view = twin_module, self._make_trainer(twin_module)
        twin.view.now(current_epoch=trial_row.epoch, global_step=0)
        twin_module.trainer = twin.view  # type: ignore[assignment]
        return twin


def numbers(tensor: Tensor, count: int) -> list[float]:
    """Return the values of a tensor `[rows]` or `[rows, 1]`.

    Raises:
        UnsupportedError: It has several values per row.
    """
    if tensor.numel() != count:
        raise UnsupportedError(f"a step logs a tensor of shape {tuple(tensor.shape[1:])}, not a number")
    return [number(value, tensor.dtype) for value in tensor.double().reshape(-1).tolist()]


def call_hook(hook: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call a hook with as many arguments as it accepts, like Lightning."""
    parameters = inspect.signature(hook).parameters.values()
    takes_all = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    return hook(*args[: len(args) if takes_all else len(parameters)])


def _training_rows(trial_rows: Sequence[TrialRow], rows: Iterable[int]) -> Iterator[tuple[int, TrialRow]]:
    return ((row, trial_rows[row]) for row in rows if trial_rows[row].trains)


def _training(trial_rows: Sequence[TrialRow]) -> Iterator[TrialRow]:
    return (trial_row for trial_row in trial_rows if trial_row.trains)


def _view(trial_row: TrialRow) -> RowTrainer:
    assert trial_row.view is not None
    return trial_row.view
