"""Evaluation of all rows with dropout off: on the validation set and on a part of the training set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dropsearch.core.batches import mapped
from dropsearch.training.logged_steps import batch_size
from dropsearch.training.vectorized.cuda_graph import GraphedCallable
from dropsearch.training.vectorized.stacked_state import StackedState
from dropsearch.training.vectorized.step import cast
from dropsearch.training.vectorized.vmap_runner import VmapRunner

Means = dict[str, list[float]]
"""The mean over examples of each logged value, by name; one number per row."""


class RowEvaluation:
    """Evaluates all rows on fixed data sets. With CUDA graphs the whole evaluation is one graph.

    Args:
        runner: Runs the module's steps for all rows.
        sets: Loaders of fixed batches, by name.
        use_cuda_graph: Whether to keep the batches on the device and capture the evaluation as a CUDA graph.
    """

    def __init__(self, runner: VmapRunner, sets: Mapping[str, Any], *, use_cuda_graph: bool) -> None:
        self._runner, self._sets, self._use_cuda_graph = runner, dict(sets), use_cuda_graph
        self._rows: StackedState | None = None

    def launch(self, rows: StackedState) -> None:
        """Start the evaluation of all rows; `means` waits for its result."""
        if self._rows is not rows:
            self._prepare(rows)
        self._run()

    def means(self) -> dict[str, Means]:
        """Return the logged means of each row, by data set."""
        numbers = self._result.tolist()
        return {
            name: {logged: numbers[index] for column_set, index, logged in self._columns if column_set == name}
            for name in self._sets
        }

    def _prepare(self, rows: StackedState) -> None:
        self._rows = rows
        self._columns: list[tuple[str, int, str]] = []
        device = rows.flat.device
        if self._use_cuda_graph:
            on_device = {
                name: [cast(_to_device(batch, device), rows.flat.dtype) for batch in batches]
                for name, batches in self._sets.items()
            }
            self._run = GraphedCallable(lambda: self._evaluate(rows, on_device), device, "evaluation", warmup_runs=1)
        else:
            self._run = lambda: self._evaluate(rows, self._sets)

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
            for name, value in self._runner.evaluate(rows, cast(batch, rows.flat.dtype)).items():
                totals[name] = totals.get(name, 0.0) + value.double() * size
            count += size
        return {name: total / count for name, total in totals.items()}


def _to_device(batch: Any, device: torch.device) -> Any:
    return mapped(batch, lambda part: part.to(device))
