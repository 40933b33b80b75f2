"""Batches of all rows: at each step every row takes a batch in its own order of the examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dropsearch.training.vectorized.trial_row import TrialRow


class RowBatches:
    """An epoch as slices of each row's order, one slice per step; `orders` returns the orders.

    A Trainer receives all slices as a single batch, since its overhead between batches exceeds a step on a GPU.

    Args:
        trial_rows: The list of current rows, shared with `VectorizedTrials`, which updates it between epochs.
    """

    def __init__(self, trial_rows: list[TrialRow]) -> None:
        self._trial_rows = trial_rows
        self._prepared: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        return 1 if self._trial_rows else 0

    def __iter__(self) -> Iterator[list[slice]]:
        yield self.slices

    @property
    def slices(self) -> list[slice]:
        """The part of an order that each step takes."""
        loader = self._trial_rows[0].loader
        size = loader.batch_size
        return [slice(start, start + size) for start in range(0, len(loader) * size, size)]

    def orders(self) -> Tensor:
        """Return the order of each row's epoch, int64 `[rows, examples]`, on the CPU."""
        return torch.stack([self._order(trial_row, trial_row.epoch) for trial_row in self._trial_rows])

    def prepare(self, max_epochs: int) -> None:
        """Compute the orders of the next epoch while the GPU is busy with the current one."""
        after = [(trial_row, trial_row.epoch + 1) for trial_row in self._trial_rows if trial_row.epoch + 1 < max_epochs]
        self._prepared = {(id(trial_row), epoch): trial_row.loader.order(epoch).cpu() for trial_row, epoch in after}

    def _order(self, trial_row: TrialRow, epoch: int) -> Tensor:
        prepared = self._prepared.get((id(trial_row), epoch))
        return trial_row.loader.order(epoch).cpu() if prepared is None else prepared


def gather_batches(tensors: Sequence[Tensor], indices: Tensor) -> tuple[Tensor, ...]:
    """Return the selected examples of each row, `[rows, batch, ...]` each.

    Args:
        tensors: All examples, `[examples, ...]` each.
        indices: Indices of the examples of each row, int64 `[rows, batch]`.
    """
    return tuple(t.index_select(0, indices.reshape(-1)).view(*indices.shape, *t.shape[1:]) for t in tensors)
