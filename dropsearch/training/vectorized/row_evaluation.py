"""What all rows log with dropout off, after each epoch: on the validation set and on a part of the training set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dropsearch.training.logged_steps import batch_size
from dropsearch.training.vectorized.cuda_graph import Recorded
from dropsearch.training.vectorized.stacked_state import StackedState
from dropsearch.training.vectorized.step import cast
from dropsearch.training.vectorized.vmap_runner import VmapRunner

Means = dict[str, list[float]]
"""The mean over examples of what was logged, by name: one number a row."""


class RowEvaluation:
    """Evaluates the rows of an array on fixed sets, all in one piece: on CUDA it is recorded and played back.

    Args:
        together: Runs the module's own steps for all rows.
        sets: Loaders of fixed batches, by name.
        recorded: Whether to keep the batches where the rows lie, and to record the evaluation.
    """

    def __init__(self, runner: VmapRunner, sets: Mapping[str, Any], *, recorded: bool) -> None:
        self._together, self._sets, self._is_recorded = runner, dict(sets), recorded
        self._rows: StackedState | None = None

    def launch(self, rows: StackedState) -> None:
        """Begin to evaluate all rows; `means` waits for it."""
        if self._rows is not rows:
            self._begin(rows)
        self._work()

    def means(self) -> dict[str, Means]:
        """Return what each row logged, by set."""
        numbers = self._result.tolist()
        return {
            name: {logged: numbers[index] for of, index, logged in self._columns if of == name} for name in self._sets
        }

    def _begin(self, rows: StackedState) -> None:
        self._rows = rows
        self._columns: list[tuple[str, int, str]] = []
        device = rows.flat.device
        if self._is_recorded:
            kept = {
                name: [cast(_moved(batch, device), rows.flat.dtype) for batch in batches]
                for name, batches in self._sets.items()
            }
            self._work = Recorded(lambda: self._evaluate(rows, kept), device, "evaluation", warm_up=1)
        else:
            self._work = lambda: self._evaluate(rows, self._sets)

    def _evaluate(self, rows: StackedState, sets: Mapping[str, Any]) -> None:
        columns, totals = [], []
        for name, batches in sets.items():
            for logged, total in self._totals(rows, batches).items():
                columns.append((name, len(totals), logged))
                totals.append(total)
        self._columns = columns
        self._result = torch.stack(totals) if totals else torch.zeros(0, rows.width)

    def _totals(self, rows: StackedState, batches: Any) -> dict[str, Tensor]:
        totals: dict[str, Tensor] = {}
        count = 0
        for batch in batches:
            size = batch_size(batch)
            for name, value in self._together.evaluate(rows, cast(batch, rows.flat.dtype)).items():
                totals[name] = totals.get(name, 0.0) + value.double() * size
            count += size
        return {name: total / count for name, total in totals.items()}


def _moved(batch: Any, device: torch.device) -> Any:
    return tuple(part.to(device) for part in batch)
