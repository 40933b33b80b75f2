"""Checks that two trials trained vectorized equal the same trials trained sequentially."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dropsearch._compat.torch_modes import backward, is_unpickling, without_modes
from dropsearch.core.batches import examples_in, examples_of, mapped
from dropsearch.core.contents import tensors_in
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.records import Site, TrialSpec
from dropsearch.core.user_errors import place_of_class, place_of_error
from dropsearch.dropout.row_control import RowBits, Shapes, mask_shapes, row_rates
from dropsearch.dropout.trial_control import VALIDATION, TrialControl
from dropsearch.training.logged_steps import call_step, captured_logs, evaluate, in_precision, runs_aside, set_to_train
from dropsearch.training.planning.trial_proof import double, trials_difference
from dropsearch.training.protocols import DataSource, TrainerSettings, is_in_memory
from dropsearch.training.sequential import ModuleFactory
from dropsearch.training.trainers import bare_trainer
from dropsearch.training.vectorized.differing import differing_attributes
from dropsearch.training.vectorized.evaluation_noise import EvaluationNoise
from dropsearch.training.vectorized.held_once import equal_in_all, noting_changed_buffers
from dropsearch.training.vectorized.observation import traits_of
from dropsearch.training.vectorized.row_optimizers import (
    RowOptimizer,
    configure_optimizer,
    parameter_order,
    takes_closure,
)
from dropsearch.training.vectorized.row_trainer import RowTrainer
from dropsearch.training.vectorized.stacked_state import StackedState
from dropsearch.training.vectorized.vmap_runner import VmapRunner
from dropsearch.training.vectorized.watched_parts import attributes, watched_parts

EXAMPLES = 64
"""Number of validation examples on which the evaluation is compared."""

TOLERANCE = 1e-9
"""Maximum difference in float64, relative to the largest value of a tensor, or absolute if that is below 1."""

_VMAP_ERRORS = {
    "random operation": "the module draws random numbers from torch in a way that no trial's seed gives",
    "data-dependent control flow": "the module branches on the value of a tensor (data-dependent control flow)",
    ".item()": "the module converts a tensor to a number (`.item()`)",
    "dynamic shape": "the module creates tensors whose shape depends on values, for example with a boolean mask",
    "extra_args": "a step fills a tensor that all trials share with values that differ between them",
}


def check_equivalence(
    make_module: ModuleFactory, data: DataSource, settings: TrainerSettings, specs: tuple[TrialSpec, TrialSpec]
) -> str:
    """Return why two trials of an arm differ between vectorized and sequential training; empty if they do not.

    Both train for two steps. Losses, gradients, buffers and the values of a validation step are compared, in float64.
    The trials have different rates; batches and masks are those that the trials would have in a search.
    """
    if settings.precision not in ("32-true", "64-true", "bf16-mixed"):
        return f"trainer.precision={settings.precision} is not supported by vectorized training"
    try:
        trainer = bare_trainer(data.train_loader(specs[0].seed), settings.max_epochs, settings.accumulation)
        with held_in_double(without_modes(make_module)) as make_module, DoublePrecision():
            by_trials = not is_in_memory(data) or bool(settings.trainer())
            if by_trials or not _is_plain(make_module, data, trainer, specs):
                return trials_difference(make_module, data, settings, specs, tolerance=TOLERANCE)
            return _compare(make_module, data, trainer, specs)
    except UnsupportedError as error:
        return f"{error}{place_of_error(error)}"
    except Exception as error:  # user code can fail in any way under vmap; it is then trained sequentially
        return _explain(error) + (place_of_error(error) or place_of_class(type(make_module(specs[0]))))


def _explain(error: Exception) -> str:
    """Return an explanation of a vmap error if there is one, otherwise the error itself, in one line."""
    message = " ".join(str(error).split())
    if re.search(r"\bdouble\b", message, re.IGNORECASE):
        return f"the module does not run in float64, in which trials are compared ({message[:200]})"
    explanations = (text for part, text in _VMAP_ERRORS.items() if "vmap" in message and part in message)
    return next(explanations, f"{type(error).__name__}: {message[:200]}")


def _is_plain(
    make_module: ModuleFactory, data: DataSource, trainer: Trainer, specs: tuple[TrialSpec, TrialSpec]
) -> bool:
    """Return whether steps compute gradients and nothing else, and the optimizer does not ask for them itself."""
    loader = data.train_loader(specs[0].seed)
    module, other = (in_precision(make_module(spec), torch.float64) for spec in specs)
    differing = set() if runs_aside(module) else differing_attributes(module, other)
    traits = traits_of(module, lambda each: RowTrainer(trainer, each, data, loader), data, dtype=torch.float64)
    if differing or not traits.is_plain:
        return False
    optimizer, _ = configure_optimizer(_module(make_module, specs[0], trainer))
    return not takes_closure(optimizer)


def _compare(make_module: ModuleFactory, data: DataSource, trainer: Trainer, specs: tuple[TrialSpec, TrialSpec]) -> str:
    sequential = [_module(make_module, spec, trainer) for spec in specs]
    vectorized = [_module(make_module, spec, trainer) for spec in specs]
    optimizer, _ = configure_optimizer(vectorized[0])
    batches, form = [_batches(data, spec, 2) for spec in specs], data.train_loader(specs[0].seed).form
    shapes, changing = _shapes(_module(make_module, specs[0], trainer), specs[0], batches[0][0])
    order, shared = parameter_order(vectorized[0], optimizer), equal_in_all(vectorized, changing)
    rows = StackedState(vectorized[0], 2, order, torch.device("cpu"), torch.float64, shared)
    for row, module in enumerate(vectorized):
        rows.bind(row, module)
    runner = VmapRunner(_module(make_module, specs[0], trainer))
    optimizers = [
        (configure_optimizer(module)[0], RowOptimizer(rows, row, bound, configure_optimizer(bound)[0]))
        for row, (module, bound) in enumerate(zip(sequential, vectorized, strict=True))
    ]
    rates = row_rates([spec.rates for spec in specs], torch.float64, torch.device("cpu"))
    bits = RowBits(shapes, 2, torch.device("cpu"))
    for step in range(2):
        examples = tuple(
            torch.stack(parts) for parts in zip(*(examples_of(each[step]) for each in batches), strict=True)
        )
        drawn = bits.draw([spec.seed for spec in specs], [step, step])
        with runner.ready():
            losses, _ = runner.train(rows, examples, rates, drawn, form)
        rows.compute_gradients([(losses, None)])
        for row, spec in enumerate(specs):
            rows.show_gradients(row, vectorized[row])
            expected = _sequential_step(sequential[row], spec, batches[row][step], step)
            difference = _difference(sequential[row], vectorized[row], expected, losses[row])
            if difference:
                return _different(difference, sequential[row])
        for row, (optimizer, row_optimizer) in enumerate(optimizers):
            optimizer.step()
            row_optimizer.step(rows.unused_spans(row))
    return _evaluation_difference(sequential, specs, rows, runner, _validation_batch(data))


def _different(what: str, module: LightningModule) -> str:
    kind = type(module)
    return f"{what} of {kind.__name__} differs between vectorized and sequential training{place_of_class(kind)}"


def _validation_batch(data: DataSource) -> Any:
    batch = next(iter(data.val_dataloader()))
    is_long = (examples_in(batch) or 0) > EXAMPLES and len({len(part) for part in examples_of(batch)}) == 1
    return mapped(batch, lambda part: double(part[:EXAMPLES] if is_long and part.dim() else part))


def _evaluation_difference(
    sequential: list[LightningModule],
    specs: tuple[TrialSpec, TrialSpec],
    rows: StackedState,
    runner: VmapRunner,
    batch: Any,
) -> str:
    """Compare the values that the validation step logs, with modules in evaluation mode."""
    shapes_of = lambda batch: runner.evaluation_shapes(batch, specs[0].rates)  # noqa: E731
    noise = EvaluationNoise(shapes_of, lambda spec: spec.seed)
    noise.observe([batch])
    with runner.ready():
        logged = runner.evaluate(rows, batch, noise.at([0, 0], specs, VALIDATION, batch, rows.flat))
    for row, (module, spec) in enumerate(zip(sequential, specs, strict=True)):
        control = TrialControl(module, spec.rates, spec.seed)
        with control.watching(), control.evaluation_step():
            expected = evaluate(module, [batch])
        for name, value in expected.items():
            if not _close(torch.tensor(value, dtype=torch.float64), logged[name][row].double().cpu()):
                return _different(name, module)
    return ""


def _module(make_module: ModuleFactory, spec: TrialSpec, trainer: Trainer) -> LightningModule:
    module = set_to_train(in_precision(make_module(spec), torch.float64))
    module.trainer = trainer
    return module


def _batches(data: DataSource, spec: TrialSpec, count: int) -> list[Any]:
    loader = data.train_loader(spec.seed)
    order = loader.order(0)
    size = min(loader.batch_size, max(2, len(order) // count))
    pieces = [order[i * size : (i + 1) * size] for i in range(count)]
    examples = ([tensor[piece.to(tensor.device)] for tensor in loader.tensors] for piece in pieces)
    return [mapped(loader.form.build(each), double) for each in examples]


def _shapes(module: LightningModule, spec: TrialSpec, batch: Any) -> tuple[Shapes, set[str]]:
    """Return the shapes of the random bits of a training step, and the buffers that it changes."""
    with captured_logs(module), noting_changed_buffers(module) as changing:
        shapes = mask_shapes(module, spec.rates, lambda: call_step(module.training_step, batch, 0))
    return shapes, changing


def _sequential_step(module: LightningModule, spec: TrialSpec, batch: Any, step: int) -> Tensor:
    control = TrialControl(module, spec.rates, spec.seed)
    module.zero_grad()
    with captured_logs(module), control.watching(), control.training_step(step):
        result: Any = call_step(module.training_step, batch, step)
    loss = result["loss"] if isinstance(result, dict) else result
    loss.backward()
    return loss.detach()


def _difference(sequential: LightningModule, vectorized: LightningModule, expected: Tensor, loss: Tensor) -> str:
    """Return the first quantity that differs, or an empty string."""
    if not _close(expected, loss.detach()):
        return f"the loss ({float(loss.detach()):.6g} instead of {float(expected):.6g})"
    for (name, parameter), reference in zip(vectorized.named_parameters(), sequential.parameters(), strict=True):
        if parameter.requires_grad and not _close(reference.grad, parameter.grad):
            return f"the gradient of {name}"
    for (name, buffer), reference in zip(vectorized.named_buffers(), sequential.buffers(), strict=True):
        if not _close(reference, buffer):
            return f"the buffer {name}"
    return ""


def _close(expected: Tensor | None, got: Tensor | None) -> bool:
    if expected is None or got is None:
        return expected is got
    scale = max(float(expected.abs().max()) if expected.numel() else 0.0, 1.0)
    equal = (expected == got) | (expected.isnan() & got.isnan())
    return bool((equal | ((expected - got).abs() <= TOLERANCE * scale)).all())


def equivalence_specs(arm: str, sites: tuple[Site, ...], dropping: bool) -> tuple[TrialSpec, TrialSpec]:
    """Return two trials of an arm whose rates differ between trials and sites; no rates if not `dropping`."""
    names = [site.name for site in sites if site.controllable] if dropping else []
    first = {name: 0.1 + 0.5 * index / max(len(names), 1) for index, name in enumerate(names)}
    second = {name: 0.6 - rate / 2 for name, rate in first.items()}
    return (
        TrialSpec(arm, 0, 11, first, lr=1e-3, weight_decay=1e-4),
        TrialSpec(arm, 1, 12, second, lr=1e-2, weight_decay=1e-3),
    )


class DoublePrecision(TorchFunctionMode):
    """Replaces casts to float32 by casts to float64: `x.float()`, `x.to(torch.float32)` and `dtype` arguments.

    Many modules compute softmax, norms or the loss in float32 regardless of the dtype of their weights. In a float64
    module this would round the compared values or fail with a dtype mismatch.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.backward:
            with self:  # a mode is off while it handles a call, but a backward pass may recompute a part of the forward
                return backward(*args, **(kwargs or {}))
        if func is torch.empty and is_unpickling(sys._getframe(1)):  # a batch from a worker process
            return func(*args, **(kwargs or {}))
        options = {name: _to_float64(value) for name, value in (kwargs or {}).items()}
        return (Tensor.double if func is Tensor.float else func)(*map(_to_float64, args), **options)


def _to_float64(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


@contextmanager
def held_in_double(make_module: ModuleFactory) -> Iterator[ModuleFactory]:
    """Yield a factory whose modules hold plain tensors of float32 in float64, as `double()` does with parameters.

    At the end the tensors are as before, since modules may share them.
    """
    before: list[tuple[Tensor, Tensor]] = []

    def make(spec: TrialSpec) -> LightningModule:
        module = make_module(spec)
        held = [value for part in watched_parts(module).values() for value in attributes(part).values()]
        for tensor in (each for value in held for each in tensors_in(value)):
            if tensor.dtype is torch.float32 and not isinstance(tensor, nn.Parameter):
                before.append((tensor, tensor.data))
                tensor.data = tensor.data.double()
        return module

    try:
        yield make
    finally:
        for tensor, values in before:
            tensor.data = values
