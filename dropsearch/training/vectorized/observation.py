"""What the steps of a module do, found by running some of them before the training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from dropsearch._compat.python_calls import showing
from dropsearch._compat.row_values import quiet_loops, version_of
from dropsearch.core.batches import BatchForm, cast, examples_of, tensors
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.global_state import python_states, seeded
from dropsearch.core.user_errors import place_of_method
from dropsearch.dropout.row_control import Shapes, mask_shapes
from dropsearch.training.adapters.layers import build_in_hooks
from dropsearch.training.logged_steps import call_step, captured_logs, in_precision, on_device_of, set_to_train
from dropsearch.training.protocols import DataSource
from dropsearch.training.vectorized.effects import EffectRecorder, value_of
from dropsearch.training.vectorized.held_once import noting_changed_buffers
from dropsearch.training.vectorized.reads import NotedReads, RowReads, metric_functions
from dropsearch.training.vectorized.row_optimizers import configure_optimizer
from dropsearch.training.vectorized.row_stacks import RowStack, stacks
from dropsearch.training.vectorized.row_trainer import RowTrainer, StepTrainer, rates_of
from dropsearch.training.vectorized.step_call import StepCall, report_compiling
from dropsearch.training.vectorized.step_traits import StepTraits, static_traits
from dropsearch.training.vectorized.vmap_modes import VmapRNN
from dropsearch.training.vectorized.vmap_runner import VmapRunner


def traits_of(
    module: Any,
    make_trainer: Callable[[Any], RowTrainer],
    data: DataSource,
    errors: list[Exception] | None = None,
    dtype: torch.dtype = torch.float32,
) -> StepTraits:
    """Return the traits of the steps of a module that is not used otherwise, on the first batches of the data.

    `errors` takes what setting up, configuring optimizers and each step raise; None to raise it. `dtype` is that of a
    module that has no layers yet.
    """
    batches = (next(iter(data.train_loader(0))), next(iter(data.val_dataloader())))
    dtype = next((each.dtype for each in module.parameters() if each.is_floating_point()), dtype)
    traits, trainer = static_traits(module), make_trainer(module)
    module.trainer = trainer
    with _collected(errors):
        build_in_hooks(module, dtype)
        in_precision(module, dtype)
    batch, val_batch = (on_device_of(module, each) for each in batches)
    with _collected(errors):
        optimizer, schedules = configure_optimizer(module)
        traits.has_plateau = any(schedule.monitor is not None for schedule in schedules)
        trainer.now(optimizers=[optimizer], lr_scheduler_configs=schedules)
    begin(module, traits)
    stepping = StepTrainer(trainer)
    stepping.attach(module)
    stepping.rates = rates_of(trainer)
    with seeded(0):
        for step, given in (("training_step", batch), ("validation_step", val_batch)):
            stepping.enter(step)
            set_to_train(module) if step == "training_step" else traits.set_eval(module)
            # A training step may take gradients.
            with _collected(errors), torch.set_grad_enabled(step == "training_step"):
                _observe(module, step, given, traits)
    traits.uses_clock, traits.reads_rates = stepping.has_read_clock, stepping.has_read_rates
    return traits


def begin(module: Any, traits: StepTraits) -> None:
    """Run the hooks before the first step on a module that is not trained, for the attributes that they set."""
    with seeded(0), captured_logs(module):
        for hook in ("on_fit_start", "on_train_start", "on_train_epoch_start"):
            if hook in traits.hooks:
                with suppress(Exception):  # a hook may need what only a trial has
                    getattr(module, hook)()


@contextmanager
def _collected(errors: list[Exception] | None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if errors is None:
            raise
        errors.append(error)


def _observe(module: Any, step: str, batch: Any, traits: StepTraits) -> None:
    index, states, recorder = ObservedInt(0), python_states(), EffectRecorder(module, traits)
    noting = recorder.recording(notes_attributes=False)
    versions = [version_of(tensor) for tensor in tensors(batch)]
    with noting, report_compiling(), showing(metric_functions()), NotedReads() as reads:
        result = value_of(call_step(getattr(module, step), batch, index))
    traits.fills_batch |= versions != [version_of(tensor) for tensor in tensors(batch)]
    traits.attributes |= set(recorder.changed)
    traits.draws_in_python |= python_states() != states
    if step == "training_step" and not isinstance(result, torch.Tensor) and "loss" not in (result or {}):
        raise UnsupportedError(f"training_step does not return a loss{place_of_method(module, step)}")
    traits.uses_batch_idx |= ObservedInt.used
    traits.reads_values |= reads.seen and _reads_of_rows(module, step, batch, traits)
    traits.functions = tuple({*traits.functions, *reads.functions})
    names = tuple(effect.name for effect in recorder.effects if effect.kind == "log")
    if step == "validation_step":
        traits.logged = names
        traits.logs_beyond_means |= any(not effect.is_mean for effect in recorder.effects)
    else:
        is_repeated = len(names) > len(set(names))
        traits.logs_beyond_means |= is_repeated or any(not each.is_last_or_mean for each in recorder.effects)


FILLS_SHARED = "extra_args"
"""A part of `vmap`'s message that values of rows fill a tensor that is not batched."""


def _reads_of_rows(module: Any, step: str, batch: Any, traits: StepTraits) -> bool:
    """Return whether a step reads values that differ between rows, by running two rows under `vmap`."""
    reads, form = RowReads(follows=True), BatchForm(batch)
    state = {f"module.{name}": torch.stack([value, value]) for name, value in module.state_dict().items()}
    examples = [torch.stack([tensor, tensor]) for tensor in examples_of(batch)]

    def run(state: Any, *examples: Tensor) -> Tensor:
        given = form.build(examples) if step == "training_step" else batch  # validation batches are shared
        with EffectRecorder(module, traits).recording(notes_attributes=False), quiet_loops(), VmapRNN(), reads:
            functional_call(StepCall(module, step), state, (given, 0))
        return torch.zeros(())

    try:
        vmap(run, randomness="different")(state, *examples)
    except Exception as error:  # the step needs a real row, so assume that it reads values
        traits.fills_batch |= step == "validation_step" and FILLS_SHARED in str(error)
        return True
    return reads.used


class ObservedInt(int):
    """An integer for `batch_idx` that sets `ObservedInt.used` if an operation uses its value."""

    used = False

    def __new__(cls, value: int) -> ObservedInt:
        """Create an unused integer."""
        ObservedInt.used = False
        return super().__new__(cls, value)


def _observed_operator(name: str) -> Callable[..., Any]:
    original = getattr(int, name)

    def operator(self: ObservedInt, *args: Any) -> Any:
        ObservedInt.used = True
        return original(self, *args)

    return operator


_OPERATORS = (
    "add radd sub rsub mul rmul mod rmod floordiv truediv eq ne lt le gt ge bool index int float str repr format and or"
)
for _name in _OPERATORS.split():
    setattr(ObservedInt, f"__{_name}__", _observed_operator(f"__{_name}__"))
ObservedInt.__hash__ = int.__hash__  # type: ignore[method-assign]


class FirstSteps:
    """Runs steps of the skeleton, which is restored, to find what the steps of all rows do."""

    def __init__(self, runner: VmapRunner, sites: Iterable[str], dtype: torch.dtype) -> None:
        self.runner, self.dtype = runner, dtype
        self._sites = tuple(sites)
        self._shapes: dict[tuple[object, ...], Shapes] = {}
        self._changing: set[str] = set()

    def follow(self, loaders: Iterable[Any], device: torch.device) -> set[str]:
        """Run a step on the first batch that a loader yields; return the buffers that steps change."""
        buffers = [name for name, _ in self.runner.skeleton.named_buffers()]
        for loader in loaders:
            try:
                batch = next(iter(loader))
            except Exception:  # the row fails when it trains
                continue
            (stack,) = stacks({0: batch}, device)
            self.mask_shapes(stack)
            metrics = tuple(f"{path}." for path in self.runner.traits.metrics)
            return self._changing | {name for name in buffers if name.startswith(metrics)}
        return set(buffers)

    def mask_shapes(self, stack: RowStack) -> Shapes:
        """Return the shapes of a row's masks for the batches of a stack."""
        if stack.shape in self._shapes:
            return self._shapes[stack.shape]
        skeleton = self.runner.skeleton
        batch = cast(stack.of(stack.rows[0]), self.dtype)
        self.runner.set_mode(training=True)  # a new shape may occur after an evaluation
        plain = self.runner.traits.is_plain
        logs = captured_logs(skeleton) if plain else EffectRecorder(skeleton, self.runner.traits).recording()
        row = self.runner.carried.as_first(self.runner.modules)
        with row, logs, noting_changed_buffers(skeleton) as changing:
            shapes = mask_shapes(skeleton, self._sites, lambda: call_step(skeleton.training_step, batch, 0))
        self._shapes[stack.shape] = shapes
        self._changing |= changing
        return shapes
