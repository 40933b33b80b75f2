"""Evaluation data of rows: batches that all rows share, or separate ones for each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from dropsearch.core.batches import BatchForm, cast, mapped
from dropsearch.datasets.lockstep import LockstepReader
from dropsearch.training.logged_steps import batch_size
from dropsearch.training.protocols import RowLoader
from dropsearch.training.vectorized.row_batches import gather_batches, read_in_lockstep
from dropsearch.training.vectorized.trial_row import TrialRow


@dataclass(frozen=True)
class EvaluationBatch:
    """A batch of the evaluation of all rows."""

    content: Any
    """The batch of the module; with a form, the tensors of all rows' batches, `[rows, batch, ...]`."""
    size: int
    """Number of examples of a row."""
    form: BatchForm | None = None
    """Form of the module's batch; None if all rows share it."""
    rows: list[int] | None = None
    """The rows that use the batch; None for all."""
    index: int | None = None
    """Number of the batch; None for its position."""

    def to(self, dtype: torch.dtype) -> EvaluationBatch:
        """Return the batch with its floating-point tensors converted to `dtype`."""
        return replace(self, content=cast(self.content, dtype))

    def row(self, row: int) -> Any:
        """Return the batch of one row."""
        if self.form is None:
            return self.content
        at = row if self.rows is None else self.rows.index(row)
        return self.form.build(tuple(part[at] for part in self.content))

    def of(self, group: Sequence[int], rows: int) -> EvaluationBatch:
        """Return the batch of some of the rows."""
        if self.form is None or len(group) == (rows if self.rows is None else len(self.rows)):
            return self
        places = group if self.rows is None else [self.rows.index(row) for row in group]
        index = torch.tensor(places, device=self.content[0].device)
        return replace(self, content=tuple(part.index_select(0, index) for part in self.content))


class EvaluationSet(Protocol):
    """The batches of an evaluation of all rows."""

    def __iter__(self) -> Iterator[EvaluationBatch]: ...


class SharedSet:
    """Batches that all rows share.

    Args:
        batches: The batches of a loader.
        kept: Device on which to keep the batches, and dtype of their floating-point tensors; None to read them from
            the loader each time.
    """

    def __init__(self, batches: Any, kept: tuple[torch.device, torch.dtype] | None = None) -> None:
        self._batches = batches
        if kept is not None:
            device, dtype = kept
            self._batches = [cast(mapped(batch, lambda part: part.to(device)), dtype) for batch in batches]

    def __iter__(self) -> Iterator[EvaluationBatch]:
        return (EvaluationBatch(batch, batch_size(batch)) for batch in self._batches)


class OwnSet:
    """Separate examples for each row, as indices of tensors that all rows share, from loaders of one length.

    The indices keep their address, as a CUDA graph requires.
    """

    def __init__(self, loaders: Sequence[RowLoader]) -> None:
        first = loaders[0]
        self._tensors, self._form, self._size = first.tensors, first.form, first.batch_size
        self._indices = torch.stack([loader.order(0) for loader in loaders]).to(first.tensors[0].device)

    def take(self, row: int, loader: RowLoader) -> None:
        """Replace the examples of a row."""
        self._indices[row].copy_(loader.order(0))

    def __iter__(self) -> Iterator[EvaluationBatch]:
        for indices in self._indices.split(self._size, dim=1):
            yield EvaluationBatch(gather_batches(self._tensors, indices), indices.shape[1], self._form)


class ReadSet:
    """Batches that each row reads from its own loader; a row whose loader raises is marked as failed."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._reader = device, LockstepReader()
        self.trial_rows: Sequence[TrialRow] = ()
        """The current rows."""

    def __iter__(self) -> Iterator[EvaluationBatch]:
        loaders = {row: each.val_loader for row, each in enumerate(self.trial_rows) if not each.is_idle}
        any_length = dict.fromkeys(loaders)
        for taken in read_in_lockstep(self._reader, self.trial_rows, loaders, any_length, self._device):
            for stack in taken.stacks:
                yield EvaluationBatch(stack.examples, stack.size, stack.form, stack.rows, taken.index)
