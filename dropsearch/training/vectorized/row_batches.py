"""The order in which an array goes through the examples: at each step one batch a row, each row in its own order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dropsearch.training.vectorized.trial_row import TrialRow


class RowBatches:
    """The pieces of an epoch: of each row's order, which `orders` returns, the parts that the steps take.

    To a Trainer all of them are one batch: its own work between two batches takes longer than a step of a GPU.

    Args:
        trial_rows: The list of open rows, which changes between epochs as trials end and begin.
    """

    def __init__(self, trial_rows: list[TrialRow]) -> None:
        self._slots = trial_rows
        self._ahead: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        return 1 if self._slots else 0

    def __iter__(self) -> Iterator[list[slice]]:
        yield self.pieces

    @property
    def pieces(self) -> list[slice]:
        """Which part of an order each step takes."""
        loader = self._slots[0].loader
        size = loader.batch_size
        return [slice(start, start + size) for start in range(0, len(loader) * size, size)]

    def orders(self) -> Tensor:
        """Return the order of each row's epoch, int64 `[rows, examples]`, on the CPU."""
        return torch.stack([self._order(trial_row, trial_row.epoch) for trial_row in self._slots])

    def prepare(self, last: int) -> None:
        """Compute the orders of the next epoch, unless it would be `last`: a GPU is still busy with this one."""
        after = [(trial_row, trial_row.epoch + 1) for trial_row in self._slots if trial_row.epoch + 1 < last]
        self._ahead = {(id(trial_row), epoch): trial_row.loader.order(epoch).cpu() for trial_row, epoch in after}

    def _order(self, trial_row: TrialRow, epoch: int) -> Tensor:
        prepared = self._ahead.get((id(trial_row), epoch))
        return trial_row.loader.order(epoch).cpu() if prepared is None else prepared


def gathered(tensors: Sequence[Tensor], chosen: Tensor) -> tuple[Tensor, ...]:
    """Return the chosen examples of each row, `[rows, batch, ...]`.

    Args:
        tensors: All examples, `[examples, ...]` each.
        chosen: The examples of each row, int64 `[rows, batch]`.
    """
    return tuple(t.index_select(0, chosen.reshape(-1)).view(*chosen.shape, *t.shape[1:]) for t in tensors)
