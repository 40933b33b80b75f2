"""The proof before the money: an array of two trials must equal the two trials alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dropsearch._compat.lightning import one_process
from dropsearch.core.records import Site, TrialSpec
from dropsearch.dropout.control import TrialControl
from dropsearch.dropout.row_control import RowBits, mask_shapes, row_rates
from dropsearch.training.logged_steps import captured_logs, evaluate
from dropsearch.training.modes import set_to_train
from dropsearch.training.protocols import RowDataSource, TrainerSettings
from dropsearch.training.sequential import ModuleFactory, quiet_lightning
from dropsearch.training.trainers import with_steps
from dropsearch.training.vectorized.row_optimizers import RowOptimizer, UnsupportedError, configured, parameter_order
from dropsearch.training.vectorized.stacked_state import StackedState
from dropsearch.training.vectorized.vmap_runner import VmapRunner

EXAMPLES = 64
"""Of the validation set, whose measurement is compared."""

TOLERANCE = 1e-9
"""How far an array's numbers may lie from those of trials alone, relative to their size, in float64."""

_IMPOSSIBLE = {
    "random operation": "the module draws random numbers of its own from torch",
    "data-dependent control flow": "the module decides by the value of a tensor (data-dependent control flow)",
    ".item()": "the module takes a number out of a tensor (`.item()`)",
    "dynamic shape": "the module makes tensors whose size depends on their values, as by a boolean mask",
}
"""What rows of an array cannot do, by what is in `torch.func.vmap`'s words for it."""


def proof(
    make_module: ModuleFactory, data: RowDataSource, settings: TrainerSettings, specs: tuple[TrialSpec, TrialSpec]
) -> str:
    """Train two trials for two steps, as rows of an array and alone, and say what differs.

    Loss, gradients and buffers are compared in float64, with different rates and the same masks. Batches and
    masks are those of the trials themselves.

    Args:
        make_module: Builds a trial's module.
        data: Where batches come from.
        settings: What all trials share.
        specs: Two trials of one arm.

    Returns:
        Empty where nothing differs; else why trials have to be trained alone, in one line.
    """
    unusual = _unusual(settings)
    if unusual:
        return unusual
    try:
        with quiet_lightning():
            trainer = Trainer(
                max_epochs=settings.max_epochs, accelerator="cpu", logger=False, barebones=True, plugins=[one_process()]
            )
            with_steps(trainer, len(data.train_loader(specs[0].seed)))
        with DoublePrecision():
            return _compare(make_module, data, trainer, specs)
    except UnsupportedError as error:
        return str(error)
    except Exception as error:  # whatever a module does that an array cannot: it is trained alone
        return _in_words(error)


def _in_words(error: Exception) -> str:
    """Say what rows cannot do; what `vmap` says of it is for those who wrote the call of it."""
    said = " ".join(str(error).split())
    known = (words for part, words in _IMPOSSIBLE.items() if "vmap" in said and part in said)
    return next(known, f"{type(error).__name__}: {said[:200]}")


def _unusual(settings: TrainerSettings) -> str:
    if settings.precision not in ("32-true", "64-true", "bf16-mixed"):
        return f"trainer.precision={settings.precision} is not trained in an array"
    return ""


def _compare(
    make_module: ModuleFactory, data: RowDataSource, trainer: Trainer, specs: tuple[TrialSpec, TrialSpec]
) -> str:
    alone = [_module(make_module, spec, trainer) for spec in specs]
    rows_of = [_module(make_module, spec, trainer) for spec in specs]
    optimizer, _ = configured(rows_of[0])
    rows = StackedState(rows_of[0], 2, parameter_order(rows_of[0], optimizer), torch.device("cpu"), torch.float64)
    for row, module in enumerate(rows_of):
        rows.bind(row, module)
    runner = VmapRunner(_module(make_module, specs[0], trainer))
    stepping = [
        (configured(module)[0], RowOptimizer(rows, row, rows_of[row], configured(rows_of[row])[0]))
        for row, module in enumerate(alone)
    ]
    batches = [_batches(data, spec, 2) for spec in specs]
    shapes = _shapes(_module(make_module, specs[0], trainer), specs[0], batches[0][0])
    rates = row_rates([spec.rates for spec in specs], torch.float64, torch.device("cpu"))
    bits = RowBits(shapes, 2, torch.device("cpu"))
    for step in range(2):
        batch = tuple(torch.stack(parts) for parts in zip(batches[0][step], batches[1][step], strict=True))
        drawn = bits.draw([spec.seed for spec in specs], [step, step])
        with runner.ready():
            losses, _ = runner.train(rows, batch, rates, drawn)
        rows.take_gradients(losses)
        for row, spec in enumerate(specs):
            expected = _step_alone(alone[row], spec, batches[row][step], step)
            difference = _difference(alone[row], rows_of[row], expected, losses[row])
            if difference:
                return f"in an array {difference} of {type(alone[row]).__name__} differs from the trial alone"
        for optimizer, row_optimizer in stepping:
            optimizer.step()
            row_optimizer.step()
    return _evaluation_difference(alone, rows, runner, _validation_batch(data))


def _validation_batch(data: RowDataSource) -> tuple[Tensor, ...]:
    batch = next(iter(data.val_dataloader()))
    parts = (part[:EXAMPLES].cpu() for part in batch)
    return tuple(part.double() if part.is_floating_point() else part for part in parts)


def _evaluation_difference(
    alone: list[LightningModule], rows: StackedState, runner: VmapRunner, batch: tuple[Tensor, ...]
) -> str:
    """Compare what the validation step logs, with dropout off."""
    with runner.ready():
        logged = runner.evaluate(rows, batch)
    for row, module in enumerate(alone):
        for name, value in evaluate(module, [batch]).items():
            if not _close(torch.tensor(value, dtype=torch.float64), logged[name][row].double().cpu()):
                return f"in an array {name} of {type(module).__name__} differs from the trial alone"
    return ""


def _module(make_module: ModuleFactory, spec: TrialSpec, trainer: Trainer) -> LightningModule:
    module = set_to_train(make_module(spec).to(torch.float64))
    module.trainer = trainer
    return module


def _batches(data: RowDataSource, spec: TrialSpec, count: int) -> list[tuple[Tensor, ...]]:
    loader = data.train_loader(spec.seed)
    order = loader.order(0)
    size = min(loader.batch_size, max(2, len(order) // count))
    pieces = [order[i * size : (i + 1) * size] for i in range(count)]
    return [
        tuple(
            part.cpu().double() if part.is_floating_point() else part.cpu()
            for part in (tensor[piece.to(tensor.device)] for tensor in loader.tensors)
        )
        for piece in pieces
    ]


def _shapes(module: LightningModule, spec: TrialSpec, batch: tuple[Tensor, ...]) -> dict[str, torch.Size]:
    with torch.no_grad(), captured_logs(module):
        return mask_shapes(module, spec.rates, lambda: module.training_step(batch, 0))


def _step_alone(module: LightningModule, spec: TrialSpec, batch: tuple[Tensor, ...], step: int) -> Tensor:
    control = TrialControl(module, spec.rates, spec.seed)
    module.zero_grad()
    with captured_logs(module), control.watching(), control.training_step(step):
        result: Any = module.training_step(batch, step)
    loss = result["loss"] if isinstance(result, dict) else result
    loss.backward()
    return loss.detach()


def _difference(alone: LightningModule, row: LightningModule, expected: Tensor, loss: Tensor) -> str:
    if not _close(expected, loss.detach()):
        return f"the loss ({float(loss.detach()):.6g} for {float(expected):.6g})"
    for (name, ours), theirs in zip(row.named_parameters(), alone.parameters(), strict=True):
        if ours.requires_grad and not _close(theirs.grad, ours.grad):
            return f"the gradient of {name}"
    for (name, ours), theirs in zip(row.named_buffers(), alone.buffers(), strict=True):
        if not _close(theirs, ours):
            return f"the buffer {name}"
    return ""


def _close(expected: Tensor | None, got: Tensor | None) -> bool:
    if expected is None or got is None:
        return expected is None and (got is None or not bool(got.any()))
    scale = max(float(expected.abs().max()) if expected.numel() else 0.0, 1.0)
    alike = (expected == got) | (expected.isnan() & got.isnan())
    return bool((alike | ((expected - got).abs() <= TOLERANCE * scale)).all())


def proof_specs(arm: str, sites: tuple[Site, ...], dropping: bool) -> tuple[TrialSpec, TrialSpec]:
    """Return two trials with rates that differ between them and between sites."""
    names = [site.name for site in sites if site.controllable] if dropping else []
    first = {name: 0.1 + 0.5 * index / max(len(names), 1) for index, name in enumerate(names)}
    second = {name: 0.6 - rate / 2 for name, rate in first.items()}
    return (
        TrialSpec(arm, 0, 11, first, lr=1e-3, weight_decay=1e-4),
        TrialSpec(arm, 1, 12, second, lr=1e-2, weight_decay=1e-3),
    )


class DoublePrecision(TorchFunctionMode):
    """Gives float64 to whoever asks for float32, by ``x.float()``, ``x.to(torch.float32)`` or a ``dtype`` argument.

    Many modules compute softmax, norms or the loss in float32 whatever their weights are. In a module whose weights
    are float64 that would round away what is to be compared, or meet a layer that refuses it.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {name: _doubled(value) for name, value in (kwargs or {}).items()}
        return (Tensor.double if func is Tensor.float else func)(*map(_doubled, args), **given)


def _doubled(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
