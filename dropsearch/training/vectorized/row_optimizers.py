"""Optimizer steps of single rows, as one fused call per row if that is equivalent to the module's optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.sgd import sgd

from dropsearch._compat.row_values import version_of
from dropsearch._compat.torch_modules import fused_adam
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.user_errors import place_of_method
from dropsearch.training.vectorized.stacked_state import StackedState

Span = tuple[int, int]


@dataclass
class Schedule:
    """A learning-rate scheduler, and how often it steps."""

    scheduler: LRScheduler
    interval: str
    frequency: int
    monitor: str | None = None
    """Metric that it monitors, or None."""
    strict: bool = True
    """Whether the monitored metric must be logged; otherwise the schedule waits for it."""


def configure_optimizer(module: LightningModule) -> tuple[Optimizer, list[Schedule]]:
    """Return a module's optimizer and schedules; raise `UnsupportedError` for several optimizers and for LBFGS."""
    optimizer: Any = module.configure_optimizers()
    place = place_of_method(module, "configure_optimizers")
    schedules: Any = []
    monitor = optimizer.get("monitor") if isinstance(optimizer, dict) else None
    if isinstance(optimizer, dict):
        config = optimizer
        optimizer, schedules = config["optimizer"], [config["lr_scheduler"]] if "lr_scheduler" in config else []
    elif isinstance(optimizer, list | tuple):
        if len(optimizer) == 2 and isinstance(optimizer[0], list | tuple):
            optimizer, schedules = optimizer
        optimizer = optimizer[0] if len(optimizer) == 1 else optimizer
    if not isinstance(optimizer, Optimizer):
        raise UnsupportedError(
            f"configure_optimizers returns {type(optimizer).__name__}, not a single optimizer{place}"
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise UnsupportedError(f"LBFGS evaluates the loss several times per step{place}")
    return optimizer, [_schedule(entry, monitor, place) for entry in schedules]


def _schedule(entry: Any, monitor: str | None, place: str) -> Schedule:
    config = entry if isinstance(entry, dict) else {"scheduler": entry, "monitor": monitor}
    scheduler = config["scheduler"]
    watches = config.get("reduce_on_plateau", isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau))
    if watches and not config.get("monitor"):
        raise UnsupportedError(f"{type(scheduler).__name__} watches a metric and names none by monitor{place}")
    watched, interval = config["monitor"] if watches else None, config.get("interval", "epoch")
    if watches and interval == "step":
        raise UnsupportedError(f"{type(scheduler).__name__} watches a metric at each step{place}")
    return Schedule(scheduler, interval, config.get("frequency", 1), watched, config.get("strict", True))


def parameter_order(module: LightningModule, optimizer: Optimizer) -> list[str]:
    """Return a module's parameter names, ordered so that the trainable part of each group is contiguous."""
    group_of = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
    last = len(optimizer.param_groups)
    names = [(group_of.get(id(p), last) if p.requires_grad else last, name) for name, p in module.named_parameters()]
    return [name for _, name in sorted(names, key=lambda pair: pair[0])]


def optimized_columns(rows: StackedState, module: LightningModule, optimizer: Optimizer) -> int:
    """Return how many columns of a row an optimizer steps; they are the first ones, by `parameter_order`."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    trained = (p for group in optimizer.param_groups for p in group["params"] if p.requires_grad)
    return max((rows.spans[names[id(p)]][1] for p in trained), default=0)


class RowOptimizer:
    """Steps one row like its module's optimizer.

    Adam, AdamW and SGD with default options run as one fused call per parameter group on a slice of the flat row. They
    read the learning rate from the optimizer's param group at each step, so schedules work unchanged. Other optimizers
    step themselves; their parameters are views of the row.
    """

    def __init__(self, rows: StackedState, row: int, module: LightningModule, optimizer: Optimizer) -> None:
        spans = group_spans(rows, module, optimizer)
        fused = _FUSED.get(type(optimizer)) if spans and has_default_options(optimizer) else None
        self._fused = _Fused(fused, rows, row, spans, optimizer) if fused else None
        self._optimizer: Any = optimizer
        # Under Lightning an optimizer gets a closure; only those of users' classes may use it otherwise.
        is_users = not type(optimizer).__module__.startswith("torch.")
        self._takes_closure = is_users and bool(inspect.signature(optimizer.step).parameters)

    def step(self, unused: Collection[Span] = ()) -> None:
        """Step the row; parameters in the columns `unused` have no gradient and stay as they are."""
        if self._fused:
            self._fused(unused)
        elif self._takes_closure:
            self._optimizer.step(_ComputedGradients(self._optimizer))
        else:
            self._optimizer.step()

    def state(self) -> list[Tensor]:
        """Return the tensors of the optimizer's state."""
        states = self._fused.states if self._fused else list(self._optimizer.state.values())
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def move(self, rows: StackedState, row: int) -> None:
        """Continue in another row with the current state; call it after the module was bound to that row."""
        if self._fused:
            self._fused.move(rows, row)


class _ComputedGradients:
    """The closure of an optimizer whose gradients are computed already, at its present weights.

    Raises:
        UnsupportedError: The optimizer asks for gradients at other weights, or a second time.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._name, self._is_called = type(optimizer).__name__, False
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._before = self._state()

    def __call__(self) -> None:
        if self._is_called:
            raise UnsupportedError(f"{self._name} evaluates the loss several times per step")
        if self._state() != self._before:
            raise UnsupportedError(f"{self._name} changes weights or gradients before it evaluates the loss")
        self._is_called = True

    def _state(self) -> list[tuple[int, int, int | None]]:
        """Return where each parameter is, and how often it and its gradient were changed in place."""
        return [(p.data_ptr(), version_of(p), None if p.grad is None else version_of(p.grad)) for p in self._parameters]


def group_spans(rows: StackedState, module: LightningModule, optimizer: Optimizer) -> list[Span]:
    """Return the columns of the trainable part of each parameter group; empty if not contiguous or without any."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    spans = []
    for group in optimizer.param_groups:
        pieces = sorted(rows.spans[names[id(p)]] for p in group["params"] if p.requires_grad)
        is_contiguous = all(left[1] == right[0] for left, right in pairwise(pieces))
        if not pieces or not is_contiguous:
            return []
        spans.append((pieces[0][0], pieces[-1][1]))
    return spans


def without(span: Span, unused: Collection[Span]) -> list[Span]:
    """Return the parts of a span that no span of `unused` covers, in their order."""
    left, (start, stop) = [], span
    for a, b in sorted(each for each in unused if start < each[1] and each[0] < stop):
        left.append((start, a))
        start = b
    return [(a, b) for a, b in (*left, (start, stop)) if a < b]


def has_default_options(optimizer: Optimizer) -> bool:
    """Return whether an optimizer uses none of the options that change its formula."""
    unsupported = ("amsgrad", "maximize", "differentiable", "capturable")
    return not any(group.get(name) for group in optimizer.param_groups for name in unsupported)


@dataclass
class _Piece:
    """Neighbouring columns of a parameter group that have had a gradient in the same steps, and their state."""

    span: Span
    group: int
    state: dict[str, Tensor] = field(default_factory=dict)

    def split(self, at: int) -> _Piece:
        """Keep the columns before `at`; return the others."""
        (start, stop), count = self.span, at - self.span[0]
        rest = {name: value[count:] if value.dim() else value.clone() for name, value in self.state.items()}
        self.state = {name: value[:count] if value.dim() else value for name, value in self.state.items()}
        self.span = start, at
        return _Piece((at, stop), self.group, rest)


class _Fused:
    """The fused steps of all parameter groups of a row."""

    def __init__(
        self, step: Callable[..., None], rows: StackedState, row: int, spans: list[Span], optimizer: Optimizer
    ) -> None:
        self._step, self._optimizer = step, optimizer
        self._pieces = [_Piece(span, index) for index, span in enumerate(spans)]
        self.move(rows, row)

    @property
    def states(self) -> list[dict[str, Tensor]]:
        return [piece.state for piece in self._pieces]

    def move(self, rows: StackedState, row: int) -> None:
        self._value, self._gradient = rows.flat[row], rows.gradients[row]

    @torch.no_grad()
    def __call__(self, unused: Collection[Span]) -> None:
        for column in {column for span in unused for column in span}:
            cut = [piece for piece in self._pieces if piece.span[0] < column < piece.span[1]]
            self._pieces += [piece.split(column) for piece in cut]
        for piece in self._pieces:
            start, stop = piece.span
            if not any(a <= start and stop <= b for a, b in unused):
                group = self._optimizer.param_groups[piece.group]
                self._step(self._value[start:stop], self._gradient[start:stop], piece.state, group)


def _adam_step(value: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=value.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(value), torch.zeros_like(value)
    state["step"] += 1
    # Called directly, because for small rows the optimizer's overhead exceeds its step.
    operator = fused_adam(decoupled=group["decoupled_weight_decay"])
    operator(
        [value], [gradient], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]],
        amsgrad=False, maximize=False, beta1=group["betas"][0], beta2=group["betas"][1],
        lr=group["lr"], eps=group["eps"], weight_decay=group["weight_decay"],
    )  # fmt: skip


def _sgd_step(value: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    momentum = [state.get("momentum")]
    sgd(
        [value], [gradient], momentum, foreach=False, fused=True,
        weight_decay=group["weight_decay"], momentum=group["momentum"], lr=group["lr"],
        dampening=group["dampening"], nesterov=group["nesterov"], maximize=False,
    )  # fmt: skip
    if momentum[0] is not None:
        state["momentum"] = momentum[0]


_FUSED: dict[type[Optimizer], Callable[..., None]] = {AdamW: _adam_step, Adam: _adam_step, SGD: _sgd_step}
