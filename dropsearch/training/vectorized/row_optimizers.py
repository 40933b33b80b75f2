"""Optimiser steps on rows: the user's own optimiser, run as one fused call a row where that is the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.sgd import sgd

from dropsearch.training.vectorized.stacked_state import StackedState

Span = tuple[int, int]


class UnsupportedError(Exception):
    """Something that an array cannot train; the message says what."""


@dataclass
class Schedule:
    """A learning-rate schedule and when it moves."""

    scheduler: LRScheduler
    interval: str
    frequency: int


def configured(module: LightningModule) -> tuple[Optimizer, list[Schedule]]:
    """Return what a module's `configure_optimizers` asks for.

    Raises:
        UnsupportedError: It asks for what an array does not do: several optimisers, a schedule that watches
            a metric, a closure.
    """
    answer: Any = module.configure_optimizers()
    schedules: Any = []
    if isinstance(answer, dict):
        answer, schedules = answer["optimizer"], [answer["lr_scheduler"]] if "lr_scheduler" in answer else []
    elif isinstance(answer, list | tuple):
        if len(answer) == 2 and isinstance(answer[0], list | tuple):
            answer, schedules = answer
        answer = answer[0] if len(answer) == 1 else answer
    if not isinstance(answer, Optimizer):
        raise UnsupportedError(f"configure_optimizers returns {type(answer).__name__}, not one optimiser")
    if isinstance(answer, torch.optim.LBFGS):
        raise UnsupportedError("LBFGS needs to evaluate the loss again within a step")
    return answer, [_schedule(entry) for entry in schedules]


def _schedule(entry: Any) -> Schedule:
    given = entry if isinstance(entry, dict) else {"scheduler": entry}
    scheduler = given["scheduler"]
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise UnsupportedError("ReduceLROnPlateau watches a metric")
    return Schedule(scheduler, given.get("interval", "epoch"), given.get("frequency", 1))


def parameter_order(module: LightningModule, optimizer: Optimizer) -> list[str]:
    """Return the names of a module's parameters such that each group of the optimiser lies in one piece."""
    group_of = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
    names = [(group_of.get(id(p), len(optimizer.param_groups)), name) for name, p in module.named_parameters()]
    return [name for _, name in sorted(names, key=lambda pair: pair[0])]


class RowOptimizer:
    """Steps one row as its module's own optimiser would.

    Adam, AdamW and SGD in their ordinary forms are one fused call for each parameter group, on a piece of the
    flat row, with the learning rate that the optimiser's own group holds at that moment, so schedules work
    unchanged. Any other optimiser runs itself, on parameters that are views of the row.

    Args:
        rows: The array.
        row: Which row.
        module: The module that is bound to it.
        optimizer: The module's optimiser.
    """

    def __init__(self, rows: StackedState, row: int, module: LightningModule, optimizer: Optimizer) -> None:
        spans = group_spans(rows, module, optimizer)
        fused = _FUSED.get(type(optimizer)) if spans and is_plain(optimizer) else None
        self._fused = _Fused(fused, rows, row, spans, optimizer) if fused else None
        self._optimizer = optimizer
        self.step: Callable[[], Any] = self._fused or optimizer.step

    def state(self) -> list[Tensor]:
        """Return the tensors that are kept between steps."""
        kept = self._fused.states if self._fused else list(self._optimizer.state.values())
        return [value for state in kept for value in state.values() if isinstance(value, Tensor)]

    def move(self, rows: StackedState, row: int) -> None:
        """Go on in another row, with the state so far; the module has moved there already."""
        if self._fused:
            self._fused.move(rows, row)


def group_spans(rows: StackedState, module: LightningModule, optimizer: Optimizer) -> list[Span]:
    """Return where each parameter group lies in a row; empty where one does not lie in one piece."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    spans = []
    for group in optimizer.param_groups:
        pieces = sorted(rows.spans[names[id(p)]] for p in group["params"])
        joined = all(left[1] == right[0] for left, right in pairwise(pieces))
        if not pieces or not joined or not all(p.requires_grad for p in group["params"]):
            return []
        spans.append((pieces[0][0], pieces[-1][1]))
    return spans


def is_plain(optimizer: Optimizer) -> bool:
    """Say whether an optimiser has none of the options that change its formula."""
    unusual = ("amsgrad", "maximize", "differentiable", "capturable")
    return not any(group.get(name) for group in optimizer.param_groups for name in unusual)


class _Fused:
    """The fused steps of a row's groups."""

    def __init__(
        self, step: Callable[..., None], rows: StackedState, row: int, spans: list[Span], optimizer: Optimizer
    ) -> None:
        self._step, self._optimizer, self._spans = step, optimizer, spans
        self.states: list[dict[str, Tensor]] = [{} for _ in spans]
        self.move(rows, row)

    def move(self, rows: StackedState, row: int) -> None:
        self._pieces = [(rows.flat[row, a:b], rows.gradients[row, a:b]) for a, b in self._spans]

    @torch.no_grad()
    def __call__(self) -> None:
        for (value, gradient), state, group in zip(
            self._pieces, self.states, self._optimizer.param_groups, strict=True
        ):
            self._step(value, gradient, state, group)


def _adam_state(state: dict[str, Tensor], value: Tensor) -> None:
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=value.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(value), torch.zeros_like(value)


def _adam_step(value: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    _adam_state(state, value)
    state["step"] += 1
    # The operator under `torch.optim.AdamW(fused=True)`: what stands around it takes longer than a small row's step.
    operator = torch.ops.aten._fused_adamw_ if group["decoupled_weight_decay"] else torch.ops.aten._fused_adam_
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


_FUSED: dict[type[Optimizer], Callable[..., None]] = {
    AdamW: _adam_step,
    Adam: _adam_step,
    SGD: _sgd_step,
}
