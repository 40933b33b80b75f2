"""Optimizers that step all rows at once, with the hyperparameters of each row in tensors.

All inputs of a step are device tensors and none is a Python number, so a captured CUDA graph remains valid when a row
gets another trial or a schedule changes the learning rate. The formulas are those of `torch.optim.Adam` (Kingma and Ba
2015), `AdamW` (Loshchilov and Hutter 2019) and `SGD`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import ClassVar

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from dropsearch.core.errors import UnsupportedError
from dropsearch.core.user_errors import place_of_method
from dropsearch.training.vectorized.row_optimizers import Span, group_spans, has_default_options, without
from dropsearch.training.vectorized.stacked_state import StackedState


class FlatOptimizer(ABC):
    """Updates `rows.flat` with `rows.gradients`.

    `spans` are the columns of each parameter group in `rows.flat`.
    """

    options: ClassVar[tuple[str, ...]]
    state: ClassVar[tuple[str, ...]]

    def __init__(self, rows: StackedState, spans: Sequence[Span]) -> None:
        self.rows, self.spans = rows, tuple(spans)
        self.buffers = {name: torch.zeros_like(rows.flat) for name in self.state}
        """Optimizer state `[rows, size]`, by name."""
        self.count = torch.zeros(rows.width, 1, dtype=torch.float64, device=rows.flat.device)
        """Number of completed steps of each row's trial, `[rows, 1]`."""
        self._host_values: list[list[list[float]]] = [[] for _ in range(rows.width)]
        """Options by row, group and option; `upload` copies them to `_values`."""
        shape = (len(self.options), rows.width, len(self.spans))
        self._values = torch.zeros(shape, dtype=torch.float64, device=rows.flat.device)
        self._stale = True

    def tensors(self) -> list[Tensor]:
        """Return the tensors that a step updates, other than the rows."""
        return [*self.buffers.values(), self.count]

    def begin(self, row: int, module: LightningModule, optimizer: Optimizer) -> None:
        """Reset a row for a new trial; raise `UnsupportedError` if its optimizer has another class or other groups."""
        same_class = _FLAT_OPTIMIZERS.get(type(optimizer)) is type(self) and has_default_options(optimizer)
        if not same_class or tuple(group_spans(self.rows, module, optimizer)) != self.spans:
            place = place_of_method(module, "configure_optimizers")
            raise UnsupportedError(f"the optimizers of two trials differ in class or parameter groups{place}")
        for tensor in self.tensors():
            tensor[row] = 0.0
        self.load_options(row, optimizer)

    def load_options(self, row: int, optimizer: Optimizer) -> None:
        """Read the current options of an optimizer's groups, which a schedule may have changed."""
        values = [self._read(group) for group in optimizer.param_groups]
        self._stale |= values != self._host_values[row]
        self._host_values[row] = values

    def _read(self, group: dict) -> list[float]:
        options = {**group, **dict(zip(("beta1", "beta2"), group.get("betas", ()), strict=False))}
        return [float(options[name]) for name in self.options]

    def upload(self) -> None:
        """Copy changed options to the device. Call it before a step; it cannot be part of a CUDA graph."""
        if self._stale:
            self._values.copy_(torch.tensor(self._host_values, dtype=torch.float64).permute(2, 0, 1))
            self._stale = False

    def resize(self, rows: StackedState, sources: Sequence[int]) -> None:
        """Continue with other `rows`, whose row i was row `sources[i]`."""
        indices = torch.as_tensor(list(sources), device=rows.flat.device)
        self.rows = rows
        self.buffers = {name: tensor[indices] for name, tensor in self.buffers.items()}
        self.count, self._values = self.count[indices], self._values[:, indices]
        self._host_values = [self._host_values[row] for row in sources]

    @torch.no_grad()
    def step(self, unused: Collection[Span] = ()) -> None:
        """Step all rows; parameters in the columns `unused` have no gradient and stay as they are."""
        for index, span in enumerate(self.spans):
            options = {name: self._values[i, :, index : index + 1] for i, name in enumerate(self.options)}
            for piece in without(span, unused):
                self._step(options, piece)
        self.count += 1

    @abstractmethod
    def _step(self, options: dict[str, Tensor], span: Span) -> None:
        """Step one parameter group, in the columns `span`; the options are float64 `[rows, 1]`."""

    def _columns(self, span: Span) -> list[Tensor]:
        return [tensor[:, slice(*span)] for tensor in (self.rows.flat, self.rows.gradients, *self.buffers.values())]


class FlatAdam(FlatOptimizer):
    """Adam and AdamW."""

    options = ("lr", "beta1", "beta2", "eps", "weight_decay", "decoupled_weight_decay")
    state = ("exp_avg", "exp_avg_sq")

    def _step(self, options: dict[str, Tensor], span: Span) -> None:
        # float64, as in torch.optim: in float32, 1 - 0.999 has four significant digits.
        count, lr, beta1, beta2 = self.count + 1, options["lr"], options["beta1"], options["beta2"]
        decay, decoupled = options["weight_decay"], options["decoupled_weight_decay"]
        shrink, added = 1 - lr * decay * decoupled, decay * (1 - decoupled)
        corrected, root = lr / (1 - beta1**count), (1 - beta2**count).sqrt()
        coefficients = (shrink, added, 1 - beta1, beta2, 1 - beta2, corrected, root, options["eps"])
        numbers = torch.cat(coefficients, dim=1).to(self.rows.flat.dtype)
        kernel = _cuda_kernel() if self.rows.flat.is_cuda else None
        if kernel is not None:
            kernel(self.rows.flat, self.rows.gradients, *self.buffers.values(), numbers, span)
        else:
            _adam(*self._columns(span), *numbers.split(1, dim=1))


@cache
def _cuda_kernel() -> Callable[..., None] | None:
    """Return the fused Adam kernel, or None if Triton is not installed."""
    try:
        from dropsearch.training.vectorized import adam_triton
    except ImportError:
        return None
    return adam_triton.step


def _adam(value: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, *numbers: Tensor) -> None:
    shrink, added, new, old, rest, corrected, root, eps = numbers
    value.mul_(shrink)
    gradient = gradient + added * value
    mean.add_(new * (gradient - mean))
    square.mul_(old).add_(rest * gradient * gradient)
    value.sub_(corrected * mean / (square.sqrt() / root + eps))


class FlatSGD(FlatOptimizer):
    """Stochastic gradient descent with momentum, also Nesterov's."""

    options = ("lr", "momentum", "dampening", "nesterov", "weight_decay")
    state = ("momentum_buffer",)

    def _step(self, options: dict[str, Tensor], span: Span) -> None:
        value, gradient, velocity = self._columns(span)
        lr, momentum, dampening, nesterov, decay = (options[name].to(value.dtype) for name in self.options)
        gradient = gradient + decay * value
        updated = momentum * velocity + (1 - dampening) * gradient
        velocity.copy_(torch.where(self.count == 0, gradient, updated))
        lookahead = torch.where(nesterov > 0, gradient + momentum * velocity, velocity)
        value.sub_(lr * torch.where(momentum == 0, gradient, lookahead))


_FLAT_OPTIMIZERS: dict[type[Optimizer], type[FlatOptimizer]] = {Adam: FlatAdam, AdamW: FlatAdam, SGD: FlatSGD}


def flat_optimizer(rows: StackedState, module: LightningModule, optimizer: Optimizer) -> FlatOptimizer | None:
    """Return the flat equivalent of a module's optimizer, or None if there is none."""
    spans = group_spans(rows, module, optimizer)
    flat = _FLAT_OPTIMIZERS.get(type(optimizer))
    return flat(rows, spans) if flat is not None and spans and has_default_options(optimizer) else None
