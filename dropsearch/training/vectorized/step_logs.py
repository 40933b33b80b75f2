"""Logged values of steps, reduced as by Lightning: for all rows at once, and for one row in one pass over a data
set.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dropsearch._compat.torchmetrics import is_metric, last_value
from dropsearch.core.errors import UnsupportedError
from dropsearch.training.logged_steps import log_options
from dropsearch.training.vectorized.step_traits import BATCH_HOOKS

LOSS = "loss of the steps"
"""Internal name of the losses, distinct from names logged by modules."""
_OF_LOSS = {"on_step": False, "on_epoch": True, "batch_size": 1}
_REDUCTIONS = {"mean": "mean", "sum": "sum", "min": "min", "max": "max", "amin": "min", "amax": "max", "avg": "mean"}


class StepLogs:
    """Means and last values of an epoch, in tensors with fixed addresses, as CUDA graphs require.

    The mean of a row is over its steps, weighted by batch size; the mean of losses is unweighted.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self._width, self._device = width, device
        self._options: dict[str, Mapping[str, Any]] = {}
        self._totals: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}

    def add(
        self,
        losses: Tensor,
        logged: Mapping[str, Tensor],
        options: Mapping[str, Mapping[str, Any]],
        size: int,
        rows: Sequence[int] | None = None,
    ) -> None:
        """Add the losses and logged values of a step, `[rows]` each, of some rows or all."""
        index = None if rows is None else torch.tensor(rows, device=self._device)
        self._add(LOSS, losses.detach(), _OF_LOSS, 1, index)
        for name, value in logged.items():
            self._add(name, value, options[name], size, index)

    def _add(self, name: str, value: Tensor, options: Mapping[str, Any], size: int, index: Tensor | None) -> None:
        value, weight = value.reshape(-1), options.get("batch_size") or size
        if name not in self._totals:
            # float64: a module may log bfloat16, in which a sum stops growing after a few hundred steps.
            columns = torch.zeros(3, self._width, dtype=torch.float64, device=self._device)
            self._totals[name], self._weights[name], self._last[name] = columns.unbind(0)
        self._options[name] = options
        on_step, on_epoch = _when(options)
        total, weights, last = self._totals[name], self._weights[name], self._last[name]
        if index is None:
            weights.add_(weight)
            if on_epoch:
                total.add_(value, alpha=weight)
            if on_step:
                last.copy_(value)
            return
        weights[index] += weight
        total[index] += weight * value
        last[index] = value.double()

    def begin_epoch(self) -> None:
        """Clear the values of the last epoch."""
        for column in (*self._totals.values(), *self._weights.values()):
            column.zero_()

    @property
    def of_steps(self) -> set[str]:
        """Names whose only value is that of the last step; a validation that logs the same name replaces it."""
        return {name for name, options in self._options.items() if _when(options) == (True, False)}

    def losses(self) -> list[float]:
        """Return the mean loss of each row; NaN for a row that took no step."""
        if LOSS not in self._totals:
            return [float("nan")] * self._width
        return (self._totals[LOSS] / self._weights[LOSS]).tolist()

    def values(self) -> list[dict[str, float]]:
        """Return the logged values of each row, by the names of `trainer.callback_metrics`."""
        found: list[dict[str, float]] = [{} for _ in range(self._width)]
        for name, options in self._options.items():
            if name == LOSS:
                continue
            on_step, on_epoch = _when(options)
            means, last = (self._totals[name] / self._weights[name]).tolist(), self._last[name].tolist()
            for row, weight in enumerate(self._weights[name].tolist()):
                if not weight:
                    continue
                if on_step:
                    found[row][f"{name}_step" if on_epoch else name] = last[row]
                if on_epoch:
                    found[row][name] = means[row]
                if on_step and on_epoch:
                    found[row][f"{name}_epoch"] = means[row]
        return found


def _when(options: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether the last value and the epoch's mean are requested, with a training step's defaults."""
    on_step, on_epoch = options.get("on_step"), options.get("on_epoch")
    return on_step is None or bool(on_step), bool(on_epoch)


class Single(float):
    """A number that was logged in float32; Lightning multiplies it by the batch size in that precision."""

    def times(self, size: float) -> float:
        """Return the product in float32 precision."""
        return float(np.float32(self * size))


def number(value: float, dtype: torch.dtype) -> float:
    """Return a number that stores whether it was float32."""
    return Single(value) if dtype is torch.float32 else value


def numbers(tensor: Tensor, count: int) -> list[float]:
    """Return the values of a tensor `[rows]` or `[rows, 1]`; raise `UnsupportedError` if a row has several."""
    if tensor.numel() != count:
        raise UnsupportedError(f"a step logs a tensor of shape {tuple(tensor.shape[1:])}, not a number")
    return [number(value, tensor.dtype) for value in tensor.double().reshape(-1).tolist()]


@dataclass
class _Entry:
    on_step: bool
    on_epoch: bool
    reduction: str = "mean"
    metric: Any = None
    total: float = 0.0
    weight: float = 0.0
    last: float = math.nan

    def add(self, value: float, size: float) -> None:
        self.last = value
        if self.reduction == "mean":
            weighted = value.times(size) if isinstance(value, Single) else value * size
            self.total, self.weight = self.total + weighted, self.weight + size
        elif self.reduction == "sum":
            self.total += value
        else:
            pick = min if self.reduction == "min" else max
            self.total = value if not self.weight else pick(self.total, value)
        self.weight = self.weight or 1.0

    def of_epoch(self) -> float:
        if self.metric is not None:
            return float(self.metric.compute())
        return self.total / self.weight if self.reduction == "mean" else self.total

    def of_step(self) -> float:
        return float(last_value(self.metric)) if self.metric is not None else self.last


class RowLog:
    """Collects the logged values of a row and reduces them like Lightning; training steps log per step by default."""

    def __init__(self, training: bool) -> None:
        self._training = training
        self._entries: dict[tuple[str, str], _Entry] = {}
        self.batch_size: int | None = None
        """Batch size of the current step or batch hook; None in other hooks."""
        self.hook = ""
        """Name of the current hook; empty in a step."""

    def log(self, name: str, value: Any, *args: Any, **options: Any) -> None:
        """Log a value; the arguments are those of `LightningModule.log`."""
        options = log_options(args, options)
        entry = self._entries.get((self.hook, name))
        if entry is None:
            entry = self._entries[self.hook, name] = self._entry(name, value, options)
        if entry.metric is None:
            size = options.get("batch_size") or self.batch_size or 1
            entry.add(_number(name, value), int(size))  # a tensor too, such as the number of true places of a mask

    def log_dict(self, values: Any, *args: Any, **options: Any) -> None:
        """Log several values by name."""
        for name, value in values.items():
            self.log(name, value, *args, **options)

    def _entry(self, name: str, value: Any, options: dict[str, Any]) -> _Entry:
        in_training_step = self._training and (not self.hook or self.hook in BATCH_HOOKS)
        on_step, on_epoch = options.get("on_step"), options.get("on_epoch")
        on_step = in_training_step if on_step is None else on_step
        on_epoch = not in_training_step if on_epoch is None else on_epoch
        if is_metric(value):
            return _Entry(on_step, on_epoch, metric=value)
        return _Entry(on_step, on_epoch, reduction_of(name, options))

    def values(self, validated: Collection[str] = ()) -> dict[str, float]:
        """Return the values by name, as in `trainer.callback_metrics` at the end of the pass.

        The names in `validated` were logged in a validation since, which replaces values of single steps.
        """
        found: dict[str, float] = {}
        for (_, name), entry in self._entries.items():
            if name in validated and not entry.on_epoch:
                continue
            is_forked = entry.on_step and entry.on_epoch
            if entry.on_step:
                found[f"{name}_step" if is_forked else name] = entry.of_step()
            if entry.on_epoch:
                found[name] = entry.of_epoch()
            if is_forked:
                found[f"{name}_epoch"] = found[name]
        return found

    def reset(self) -> None:
        """Clear all values and reset logged metric objects."""
        for entry in self._entries.values():
            if entry.metric is not None:
                entry.metric.reset()
        self._entries.clear()


def reduction_of(name: str, options: Mapping[str, Any]) -> str:
    """Return how a value is reduced, by the options of its log call; raise `UnsupportedError` for a custom function."""
    reduce_fx = options.get("reduce_fx", "mean")
    reduced_by = str(getattr(reduce_fx, "__name__", reduce_fx))
    if reduced_by not in _REDUCTIONS:
        raise UnsupportedError(f"a step logs {name} with a custom reduction, reduce_fx={reduced_by}")
    return _REDUCTIONS[reduced_by]


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise UnsupportedError(f"a step logs {name} as a tensor of shape {tuple(value.shape)}")
        return number(float(value.detach()), value.dtype)
    return value if isinstance(value, Single) else float(value)
