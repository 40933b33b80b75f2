"""The batches of an array: at each step one a row, each row in its own order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dropsearch.training.slot import Slot


class RowBatches:
    """An iterable of batches `[rows, batch, ...]`, one epoch of every slot at each pass.

    Args:
        slots: The array's own list, which changes between epochs as trials end and begin.
    """

    def __init__(self, slots: list[Slot]) -> None:
        self._slots = slots

    def __len__(self) -> int:
        return len(self._slots[0].loader) if self._slots else 0

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        loader = self._slots[0].loader
        size, tensors = loader.batch_size, loader.tensors
        orders = torch.stack([slot.loader.order(slot.epoch) for slot in self._slots]).to(tensors[0].device)
        for start in range(0, orders.shape[1], size):
            chosen = orders[:, start : start + size]
            yield tuple(t.index_select(0, chosen.reshape(-1)).view(*chosen.shape, *t.shape[1:]) for t in tensors)
