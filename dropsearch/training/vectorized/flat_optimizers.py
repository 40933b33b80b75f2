"""Optimiser steps on all rows at once, with the hyperparameters of each row in tensors.

What a step needs lies on the device and nothing of it is a Python number, so that a recorded step (a CUDA graph) stays
right when a row takes another trial or a schedule moves. The formulas are those of `torch.optim.Adam` (Kingma and Ba
2015), `AdamW` (Loshchilov and Hutter 2019) and `SGD`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import ClassVar

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from dropsearch.training.vectorized.row_optimizers import Span, UnsupportedError, group_spans, is_plain
from dropsearch.training.vectorized.stacked_state import StackedState


class FlatOptimizer(ABC):
    """Steps `rows.flat` by `rows.gradients`.

    Args:
        rows: The array.
        spans: Where each parameter group lies in a row.
    """

    options: ClassVar[tuple[str, ...]]
    """The options of a parameter group that a step uses."""
    state: ClassVar[tuple[str, ...]]
    """The names of what is kept for each parameter between steps."""

    def __init__(self, rows: StackedState, spans: Sequence[Span]) -> None:
        self.rows, self.spans = rows, tuple(spans)
        self.kept = {name: torch.zeros_like(rows.flat) for name in self.state}
        self.count = torch.zeros(rows.width, 1, dtype=torch.float64, device=rows.flat.device)
        """Steps done by the trial of each row."""
        self._given: list[list[list[float]]] = [[] for _ in range(rows.width)]
        """The options of each row and group, as the host knows them."""
        shape = (len(self.options), rows.width, len(self.spans))
        self._values = torch.zeros(shape, dtype=torch.float64, device=rows.flat.device)
        self._stale = True

    def tensors(self) -> list[Tensor]:
        """Return all that a step changes beside the rows."""
        return [*self.kept.values(), self.count]

    def begin(self, row: int, module: LightningModule, optimizer: Optimizer) -> None:
        """Give a row to a trial that begins, with its module's own optimiser for the options.

        Raises:
            UnsupportedError: The optimiser is of another form than those of the other rows.
        """
        same = _KINDS.get(type(optimizer)) is type(self) and is_plain(optimizer)
        if not same or tuple(group_spans(self.rows, module, optimizer)) != self.spans:
            raise UnsupportedError("trials have optimisers of different forms")
        for tensor in self.tensors():
            tensor[row] = 0.0
        self.take(row, optimizer)

    def take(self, row: int, optimizer: Optimizer) -> None:
        """Take up the options that an optimiser's groups hold now, for instance what a schedule has set."""
        given = [self._read(group) for group in optimizer.param_groups]
        self._stale |= given != self._given[row]
        self._given[row] = given

    def _read(self, group: dict) -> list[float]:
        given = {**group, **dict(zip(("beta1", "beta2"), group.get("betas", ()), strict=False))}
        return [float(given[name]) for name in self.options]

    def upload(self) -> None:
        """Bring changed options to the device; not a part of the step."""
        if self._stale:
            self._values.copy_(torch.tensor(self._given, dtype=torch.float64).permute(2, 0, 1))
            self._stale = False

    def narrow(self, rows: StackedState, kept: Sequence[int]) -> None:
        """Go on with the rows `kept`, which lie in `rows` now, in that order."""
        chosen = torch.as_tensor(list(kept), device=rows.flat.device)
        self.rows = rows
        self.kept = {name: tensor[chosen] for name, tensor in self.kept.items()}
        self.count, self._values = self.count[chosen], self._values[:, chosen]
        self._given = [self._given[row] for row in kept]

    @torch.no_grad()
    def step(self) -> None:
        """Step all rows."""
        for index, span in enumerate(self.spans):
            given = {name: self._values[i, :, index : index + 1] for i, name in enumerate(self.options)}
            self._step(given, span)
        self.count += 1

    @abstractmethod
    def _step(self, given: dict[str, Tensor], span: Span) -> None:
        """Step one group, which lies in the columns `span`; the options are float64 `[rows, 1]`."""

    def _columns(self, span: Span) -> list[Tensor]:
        """Return values, gradients and what is kept of a group, `[rows, size]` each."""
        return [tensor[:, slice(*span)] for tensor in (self.rows.flat, self.rows.gradients, *self.kept.values())]


class FlatAdam(FlatOptimizer):
    """Adam and AdamW."""

    options = ("lr", "beta1", "beta2", "eps", "weight_decay", "decoupled_weight_decay")
    state = ("exp_avg", "exp_avg_sq")

    def _step(self, given: dict[str, Tensor], span: Span) -> None:
        # In float64 as on the host: 1 - 0.999 has four digits in float32.
        count, lr, beta1, beta2 = self.count + 1, given["lr"], given["beta1"], given["beta2"]
        decay, decoupled = given["weight_decay"], given["decoupled_weight_decay"]
        shrink, added = 1 - lr * decay * decoupled, decay * (1 - decoupled)
        corrected, root = lr / (1 - beta1**count), (1 - beta2**count).sqrt()
        each = (shrink, added, 1 - beta1, beta2, 1 - beta2, corrected, root, given["eps"])
        numbers = torch.cat(each, dim=1).to(self.rows.flat.dtype)
        kernel = _cuda_kernel() if self.rows.flat.is_cuda else None
        if kernel is not None:
            kernel(self.rows.flat, self.rows.gradients, *self.kept.values(), numbers, span)
        else:
            _adam(*self._columns(span), *numbers.split(1, dim=1))


@cache
def _cuda_kernel() -> Callable[..., None] | None:
    """Return what steps a group of all rows in one launch, None where torch came without Triton."""
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
    """Stochastic gradient descent with momentum, Nesterov's too."""

    options = ("lr", "momentum", "dampening", "nesterov", "weight_decay")
    state = ("momentum_buffer",)

    def _step(self, given: dict[str, Tensor], span: Span) -> None:
        value, gradient, velocity = self._columns(span)
        lr, momentum, dampening, nesterov, decay = (given[name].to(value.dtype) for name in self.options)
        gradient = gradient + decay * value
        going = momentum * velocity + (1 - dampening) * gradient
        velocity.copy_(torch.where(self.count == 0, gradient, going))
        ahead = torch.where(nesterov > 0, gradient + momentum * velocity, velocity)
        value.sub_(lr * torch.where(momentum == 0, gradient, ahead))


_KINDS: dict[type[Optimizer], type[FlatOptimizer]] = {Adam: FlatAdam, AdamW: FlatAdam, SGD: FlatSGD}


def flat_optimizer(rows: StackedState, module: LightningModule, optimizer: Optimizer) -> FlatOptimizer | None:
    """Return what steps all rows as their own optimisers of this form would; None where nothing here does.

    Args:
        rows: The array.
        module: A module that is bound to a row.
        optimizer: The module's own.
    """
    spans = group_spans(rows, module, optimizer)
    kind = _KINDS.get(type(optimizer))
    return kind(rows, spans) if kind is not None and spans and is_plain(optimizer) else None
