"""Batches of several rows, stacked by form."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dropsearch.core.batches import BatchForm, cast, form_of, is_packed, leaves, tensors
from dropsearch.training.logged_steps import batch_size


@dataclass(frozen=True, eq=False)
class RowStack:
    """Batches of the same form, of some rows at one step; or one batch that all rows share."""

    rows: list[int]
    examples: Any
    """The tensors of the batches, `[rows, ...]` each; without a form the shared batch itself."""
    form: BatchForm | None

    @property
    def size(self) -> int:
        """Number of examples in a batch."""
        if self.form is None:
            return batch_size(self.examples)
        return next((int(each.shape[1]) for each in self.examples if each.dim() > 1), 1)

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shapes of the batch, which determine the shapes of masks."""
        return tuple(each.shape[1:] for each in self.examples)

    def of(self, row: int) -> Any:
        """Return the batch of a row."""
        if self.form is None:
            return self.examples
        index = self.rows.index(row)
        return self.form.build([each[index] for each in self.examples])

    def cast(self, dtype: torch.dtype) -> RowStack:
        """Return the same batches with floating-point tensors of a dtype."""
        return replace(self, examples=cast(self.examples, dtype))

    def part(self, rows: Sequence[int]) -> RowStack:
        """Return the batches of some of the rows."""
        if self.form is None or list(rows) == self.rows:
            return self
        index = torch.tensor([self.rows.index(row) for row in rows], device=self.examples[0].device)
        return RowStack(list(rows), tuple(each.index_select(0, index) for each in self.examples), self.form)


def stacks(batches: Mapping[int, Any], device: torch.device) -> list[RowStack]:
    """Stack the batches of rows that have the same form, shapes and plain values."""
    groups: dict[Any, list[int]] = {}
    for row, batch in batches.items():
        groups.setdefault(_signature(row, batch), []).append(row)
    return [_stack(rows, [batches[row] for row in rows], device) for rows in groups.values()]


def _signature(row: int, batch: Any) -> Any:
    """Return a key that is equal for batches that can be stacked; unique for a packed sequence."""
    if type(batch) in (tuple, list) and all(type(part) is Tensor for part in batch):
        return type(batch), *((part.shape, part.dtype) for part in batch)
    if is_packed(batch):
        return row
    return type(batch), *map(_of_leaf, leaves(batch))


def _of_leaf(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.dtype, leaf.layout
    return leaf if isinstance(leaf, bool | int | float | None) else type(leaf)


def _stack(rows: list[int], batches: list[Any], device: torch.device) -> RowStack:
    columns = zip(*(tuple(tensors(batch)) for batch in batches), strict=True)
    examples = tuple(_on_device(list(column), device) for column in columns)
    return RowStack(rows, examples, form_of(batches, with_scalars=True))


def _on_device(parts: list[Tensor], device: torch.device) -> Tensor:
    if device.type != "cuda" or parts[0].is_cuda:
        return torch.stack(parts).to(device)
    # Pinned memory is copied on a separate stream while the device computes the previous step.
    pinned = torch.stack(parts, out=torch.empty((len(parts), *parts[0].shape), dtype=parts[0].dtype, pin_memory=True))
    copying, computing = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copying):
        found = pinned.to(device, non_blocking=True)
    computing.wait_stream(copying)
    found.record_stream(computing)
    return found


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
