"""The steps of a LightningModule, run for all rows at once by `torch.func.vmap`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.func import functional_call, vmap

from dropsearch._compat.python_calls import showing
from dropsearch._compat.row_values import autograd_functions, expanded, quiet_loops, sampled_under_vmap
from dropsearch._compat.torch_modes import not_recomputed
from dropsearch.core.batches import BatchForm, mapped
from dropsearch.core.errors import UnsupportedError
from dropsearch.dropout.row_control import RowDropoutControl, RowRates, Shapes, mask_shapes
from dropsearch.training.logged_steps import Modes, call_step, captured_logs, on_device_of, set_to_train
from dropsearch.training.protocols import Convolutions
from dropsearch.training.vectorized.applied_effects import Log, apply, tensors_by_row
from dropsearch.training.vectorized.attribute_watch import KeptState
from dropsearch.training.vectorized.by_row import RowsDifferError, by_row
from dropsearch.training.vectorized.carried import CarriedAttributes
from dropsearch.training.vectorized.effects import Effect, EffectRecorder
from dropsearch.training.vectorized.reads import RowReads
from dropsearch.training.vectorized.row_trainer import StepTrainer
from dropsearch.training.vectorized.stacked_state import RowsPart, StackedState
from dropsearch.training.vectorized.step_call import StepCall
from dropsearch.training.vectorized.step_traits import NotLoadedError, StepTraits
from dropsearch.training.vectorized.trial_row import OF_ALL_ROWS, TrialRow
from dropsearch.training.vectorized.vmap_modes import MixedPrecision, RowConvolutions, VmapRNN

GroupStep = Callable[[list[int], StackedState | RowsPart], None]

_CONVOLUTIONS: dict[Convolutions, Any] = {"grouped": nullcontext, "by row": RowConvolutions}


_PRECISIONS: dict[str, Any] = {"bf16-mixed": MixedPrecision}


class VmapRunner:
    """Runs the steps of `skeleton` under ``torch.func.vmap``, each row with its own parameters and rates.

    The skeleton has the shapes of all rows; the values of its parameters are not used.
    """

    def __init__(
        self,
        skeleton: LightningModule,
        precision: str = "32-true",
        convolutions: Convolutions = "grouped",
        traits: StepTraits | None = None,
    ) -> None:
        self.skeleton = skeleton
        self.traits = traits or StepTraits()
        self._recorder = None if self.traits.is_plain else EffectRecorder(skeleton, self.traits)
        self._effects: list[Effect] = []
        """Effects of the last step, if steps have any."""
        self._effect_tensors: tuple[Tensor, ...] = ()
        """The tensors of these effects, `[rows, ...]` each."""
        self.log_options: dict[str, dict[str, Any]] = {}
        """Log options of the last training step by name, if steps only compute a loss and log means."""
        self.modules: Sequence[LightningModule] = ()
        """The modules of the rows of the next step, if their steps have effects."""
        self.batch_idx = 0
        self._precision = _PRECISIONS.get(precision, nullcontext)
        self._convolutions = _CONVOLUTIONS[convolutions]
        self._modes = Modes(set_to_train(skeleton))
        self._training = True
        self._call = StepCall(skeleton)
        self._before_steps: KeptState | None = None
        """What the module held before its steps, if these keep no state."""
        self.carried = CarriedAttributes(skeleton, self.traits)
        self.control = RowDropoutControl(skeleton)
        self.control.draws_in_python = self.traits.draws_in_python

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Set up the global state that the steps need. Enter it once around many steps."""
        fastpath = torch.backends.mha.get_fastpath_enabled()
        # In eval mode `nn.TransformerEncoderLayer` uses a fused kernel, which has no batching rule.
        torch.backends.mha.set_fastpath_enabled(False)
        with ExitStack() as stack:
            stack.callback(torch.backends.mha.set_fastpath_enabled, fastpath)
            stack.enter_context(self.control.watching())
            stack.enter_context(showing(self.traits.functions))
            stack.enter_context(autograd_functions(by_row))
            stack.enter_context(quiet_loops())
            stack.enter_context(not_recomputed())
            stack.enter_context(sampled_under_vmap())
            self._before_steps = KeptState(self.skeleton) if self._recorder is None else None
            yield

    def require_unchanged(self) -> None:
        """Raise `UnsupportedError` if steps have begun to keep state that no row has for itself."""
        if self._before_steps is not None:
            self._before_steps.require_unchanged()
        view = vars(self.skeleton).get("_trainer")
        if isinstance(view, StepTrainer) and view.has_read_clock and not self.traits.uses_clock:
            raise UnsupportedError("a step reads the epoch or step of its Trainer, as the first steps did not")

    def train(
        self,
        rows: StackedState | RowsPart,
        examples: Sequence[Tensor],
        rates: RowRates,
        bits: Mapping[str, Tensor],
        form: BatchForm | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the training step of all rows.

        Args:
            rows: Stacked parameters and buffers.
            examples: The tensors of a batch of each row, `[rows, batch, ...]` each.
            rates: Rates of each site, `[rows]`.
            bits: Random bits of each site's mask, `[rows, *mask]`.
            form: Form of the module's batch; None for a tuple.

        Returns:
            Losses `[rows]`, and logged values by name, `[rows]` each.
        """

        def run_row(parameters: Any, buffers: Any, examples: Any, rates: Any, bits: Any, carried: Any) -> Any:
            self.control.load(rates, bits)
            given = examples if form is None else form.build(examples)
            with self.carried.shown(carried):
                result, *found = self._run("training_step", parameters, {**rows.shared, **buffers}, given)
            loss = result["loss"] if isinstance(result, Mapping) else result
            return loss, *found

        self.set_mode(training=True)
        self.control.begin(bits)
        if self.traits.fills_batch:  # rows that branch apart take the step again
            examples = [each.clone() for each in examples]
        losses, logged, self._effect_tensors = vmap(run_row)(
            rows.parameters, rows.buffers, tuple(examples), rates, dict(bits), self.carried.of(self.modules)
        )
        return losses, logged

    @torch.no_grad()
    def evaluate(
        self,
        rows: StackedState | RowsPart,
        batch: Any,
        noise: tuple[RowRates, Mapping[str, Tensor]],
        form: BatchForm | None,
    ) -> dict[str, Tensor]:
        """Run the validation step of all rows, with modules in evaluation mode.

        Args:
            rows: Stacked parameters and buffers.
            batch: The batch that all rows share; with `form` the tensors of a batch of each row, `[rows, batch, ...]`.
            noise: Rates and random bits of sites that also drop or draw in evaluation, `[rows, ...]` each.
            form: Form of the module's batch; None if all rows share it.

        Returns:
            Logged values by name, `[rows]` each.
        """

        def run_row(parameters: Any, buffers: Any, examples: Any, rates: Any, bits: Any, carried: Any) -> Any:
            self.control.load(rates, bits)
            shared = mapped(batch, expanded) if self.traits.fills_batch else batch
            given = shared if form is None else form.build(examples)
            with self.carried.shown(carried):
                return self._run("validation_step", parameters, {**rows.shared, **buffers}, given)[1:]

        self.set_mode(training=False)
        parameters = {name: parameter.detach() for name, parameter in rows.parameters.items()}
        examples, (rates, bits) = () if form is None else tuple(batch), noise
        self.control.begin(bits)
        logged, self._effect_tensors = vmap(run_row)(
            parameters, rows.buffers, examples, rates, dict(bits), self.carried.of(self.modules)
        )
        return logged

    def effects_of(self, rows: Sequence[int]) -> Iterator[tuple[int, Callable[[Any, Log], Any]]]:
        """Yield each of the rows of the last step with a function that applies its effects to the row's module.

        The function takes the module and a receiver of logged values, and returns the result of the step, if recorded.
        """
        for row, own in zip(rows, tensors_by_row(self._effects, self._effect_tensors, len(rows)), strict=True):
            yield row, lambda module, log, own=own: apply(self._effects, module, own, log)

    def evaluation_shapes(self, batch: Any, sites: Iterable[str]) -> Shapes:
        """Return the shapes of the random bits that a validation step of one row needs, with the rates of sites set."""
        self.set_mode(training=False)
        recorder = self._recorder
        logs = captured_logs(self.skeleton) if recorder is None else recorder.recording()
        with torch.no_grad(), logs, sampled_under_vmap():
            run = lambda: call_step(self.skeleton.validation_step, on_device_of(self.skeleton, batch), 0)  # noqa: E731
            return mask_shapes(self.skeleton, sites, run)

    def in_groups(
        self, trial_rows: Sequence[TrialRow], rows: StackedState, step: GroupStep, among: Sequence[int]
    ) -> None:
        """Run a step for groups of rows, by indices and state, with the Trainer's attributes set for each group.

        A module that reads the epoch gets a number, so only rows in the same epoch are in one group. Rows between which
        a step branches are in different groups. After an error each row is a group, and the rows that raise it keep it.
        """
        among = [row for row in among if trial_rows[row].error is None]
        for group, part in self._groups(trial_rows, rows, among):
            self._branching(trial_rows, group, part, rows, step)

    def _branching(
        self,
        trial_rows: Sequence[TrialRow],
        group: list[int],
        part: StackedState | RowsPart,
        rows: StackedState,
        step: GroupStep,
    ) -> None:
        before = rows.copies(parameters=self.traits.asks_rows) if part is rows else []
        try:
            step(group, part)
            return
        except OF_ALL_ROWS:
            raise
        except RowsDifferError as error:
            apart = [[group[row] for row in some] for some in error.groups()]
        except NotLoadedError as error:
            if not self.modules:
                raise UnsupportedError(f"a step reads self.{error.attribute[1]}, as the first steps did not") from error
            self.carried.load(error.attribute)
            apart = [group]
        except Exception as error:
            if len(group) == 1:
                trial_rows[group[0]].error = error
                return
            apart = [[row] for row in group]
        for held, value in before:
            held.copy_(value)
        for some in apart:
            self._branching(trial_rows, some, rows.part(some), rows, step)

    def _groups(
        self, trial_rows: Sequence[TrialRow], rows: StackedState, among: Sequence[int]
    ) -> Iterator[tuple[list[int], StackedState | RowsPart]]:
        by_epoch: dict[tuple[int, int], list[int]] = {}
        for row in among:
            trial_row = trial_rows[row]
            clock = (trial_row.epoch, trial_row.updates) if self.traits.uses_clock else (0, 0)
            by_epoch.setdefault(clock, []).append(row)
        for (epoch, step), group in by_epoch.items():
            if self.traits.uses_clock:
                self.skeleton.trainer.now(current_epoch=epoch, global_step=step)  # type: ignore[attr-defined]
            if self.traits.draws_in_python:  # such a number is one of the program, so each row takes the step by itself
                yield from (([row], rows.part([row]) if len(trial_rows) > 1 else rows) for row in group)
                continue
            yield group, rows if len(group) == len(trial_rows) else rows.part(group)

    def set_mode(self, *, training: bool) -> None:
        """Set training or evaluation mode of the skeleton."""
        if self._training is not training:  # traversing all modules takes as long as a small layer
            if training:
                self._modes.put_back()
            else:
                self.traits.set_eval(self.skeleton)
            if isinstance(view := vars(self.skeleton).get("_trainer"), StepTrainer):
                view.enter("training_step" if training else "validation_step")
            self._training = training

    def _run(
        self, step: str, parameters: Any, buffers: Any, batch: Any
    ) -> tuple[Any, dict[str, Tensor], tuple[Tensor, ...]]:
        self._call.name = step
        state = {f"module.{name}": value for name, value in (*parameters.items(), *buffers.items())}
        # Calls by a later mode pass through the earlier modes; the control passes on single layers.
        modes = [self._convolutions(), self._precision(), VmapRNN(), self.control.step()]
        if self.traits.asks_rows:
            modes.append(RowReads())
        recorder = self._recorder
        with captured_logs(self.skeleton) if recorder is None else recorder.recording() as logged, ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode)
            stack.enter_context(self.carried.guarded())
            result = functional_call(self._call, state, (batch, self.batch_idx))
            if recorder is not None and self.traits.needs_result(step):
                recorder.note_result(result)
        if recorder is not None:
            self.require_unchanged()
            self._effects = recorder.effects
            return result, {}, tuple(recorder.tensors)
        assert logged is not None
        if step == "training_step":
            self.log_options = logged.options
        device = next((tensor.device for tensor in state.values()), None)
        return result, {name: _as_tensor(value, device) for name, value in logged.items()}, ()


def _as_tensor(value: Any, device: torch.device | None) -> Tensor:
    """Return a logged value as a tensor; numbers are created on the device, as CUDA graphs require."""
    return value.detach() if isinstance(value, Tensor) else torch.full((), float(value), device=device)
