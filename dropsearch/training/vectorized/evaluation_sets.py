"""Evaluation data of rows: batches that all rows share, or separate ones for each row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from dropsearch.core.batches import cast, mapped
from dropsearch.datasets.lockstep import LockstepReader
from dropsearch.training.protocols import RowLoader
from dropsearch.training.vectorized.row_batches import gather_batches, read_in_lockstep
from dropsearch.training.vectorized.row_stacks import RowStack
from dropsearch.training.vectorized.trial_row import TrialRow

EvaluationSet = Iterable[tuple[int, RowStack]]
"""The batches of an evaluation of all rows, with their numbers."""


class SharedSet:
    """Batches that all rows share.

    If `kept` names a device and a real type, they are kept there; else the loader is read each time.
    """

    def __init__(self, batches: Any, rows: int, kept: tuple[torch.device, torch.dtype] | None = None) -> None:
        self._batches, self._rows = batches, list(range(rows))
        if kept is not None:
            device, dtype = kept
            self._batches = [cast(mapped(batch, lambda part: part.to(device)), dtype) for batch in batches]

    def __iter__(self) -> Iterator[tuple[int, RowStack]]:
        return enumerate(RowStack(self._rows, batch, None) for batch in self._batches)


class OwnSet:
    """Separate examples for each row, as indices of shared tensors, whose address stays, as a CUDA graph requires."""

    def __init__(self, loaders: Sequence[RowLoader]) -> None:
        first = loaders[0]
        self._tensors, self._form, self._size = first.tensors, first.form, first.batch_size
        self._indices = torch.stack([loader.order(0) for loader in loaders]).to(first.tensors[0].device)

    def take(self, row: int, loader: RowLoader) -> None:
        """Replace the examples of a row."""
        self._indices[row].copy_(loader.order(0))

    def __iter__(self) -> Iterator[tuple[int, RowStack]]:
        rows = list(range(len(self._indices)))
        for index, indices in enumerate(self._indices.split(self._size, dim=1)):
            yield index, RowStack(rows, gather_batches(self._tensors, indices), self._form)


class ReadSet:
    """Batches that each row reads from its own loader; a row whose loader raises is marked as failed."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._reader = device, LockstepReader()
        self.trial_rows: Sequence[TrialRow] = ()

    def __iter__(self) -> Iterator[tuple[int, RowStack]]:
        loaders = {row: each.val_loader for row, each in enumerate(self.trial_rows) if not each.is_idle}
        any_length = dict.fromkeys(loaders)
        for taken in read_in_lockstep(self._reader, self.trial_rows, loaders, any_length, self._device):
            yield from ((taken.index, stack) for stack in taken.stacks)
