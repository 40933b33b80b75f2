"""Last values and means of the logged values of training steps, for all rows at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

LOSS = "loss of the steps"
"""Internal name of the losses, distinct from names logged by modules."""
_OF_LOSS = {"on_step": False, "on_epoch": True, "batch_size": 1}


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
