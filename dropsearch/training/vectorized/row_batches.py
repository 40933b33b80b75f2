"""Training batches of rows: from examples in memory, or from a loader per row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dropsearch.core.batches import BatchForm
from dropsearch.core.user_errors import described
from dropsearch.datasets.lockstep import LockstepReader
from dropsearch.training.vectorized.row_stacks import RowStack, stacks
from dropsearch.training.vectorized.trial_row import TrialRow


class StepBatches:
    """The batches of one step; `read` returns those of the rows, stacked by form."""

    def __init__(self, index: int, read: Callable[[], list[RowStack]]) -> None:
        self.index, self._read = index, read

    @property
    def stacks(self) -> list[RowStack]:
        """The batches; each request reads them from memory again."""
        return self._read()


class RowBatches(ABC):
    """An epoch of all rows; the list of rows is that of `TrialStack`, which updates it between epochs."""

    def __init__(self, trial_rows: list[TrialRow]) -> None:
        self.trial_rows = trial_rows

    @abstractmethod
    def steps(self) -> Iterator[StepBatches]:
        """Begin an epoch of all rows and yield its steps."""

    def prepare(self, max_epochs: int) -> None:  # noqa: B027
        """Prepare the next epoch on the host while a GPU runs the current one, if there is anything to prepare."""

    def close(self) -> None:  # noqa: B027
        """Release the resources of reading, if there are any."""

    def held(self) -> int:
        """Return the bytes of the batches that are read and not yet trained on, in the memory of the host."""
        return 0

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the rows are."""


class MemoryBatches(RowBatches):
    """Batches from examples in memory: at each step every row takes a slice of its own order."""

    def __init__(self, trial_rows: list[TrialRow]) -> None:
        super().__init__(trial_rows)
        self._prepared: dict[tuple[int, int], Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Device of the examples."""
        return self.examples[0].device

    @property
    def examples(self) -> Sequence[Tensor]:
        """The training set, `[examples, ...]` each."""
        return self.trial_rows[0].loader.tensors

    @property
    def batch_size(self) -> int:
        """Number of examples in a batch."""
        return self.trial_rows[0].loader.batch_size

    def first(self) -> RowStack:
        """Return a batch of the first row, which has the form and shape of all batches."""
        indices = torch.arange(self.batch_size, device=self.device)[None]
        return RowStack([0], gather_batches(self.examples, indices), self.form)

    @property
    def form(self) -> BatchForm:
        """The form of the module's batches."""
        return self.trial_rows[0].loader.form

    def steps(self) -> Iterator[StepBatches]:
        """Yield the steps of an epoch."""
        orders: list[Tensor] = []

        def read(index: int) -> list[RowStack]:
            if not orders:  # not called by steps that gather examples themselves
                orders.append(self.orders().to(self.device))
            indices = orders[0][:, index * self.batch_size : (index + 1) * self.batch_size]
            return [RowStack(list(range(len(indices))), gather_batches(self.examples, indices), self.form)]

        for index in range(len(self.trial_rows[0].loader)):
            yield StepBatches(index, partial(read, index))

    def orders(self) -> Tensor:
        """Return the order of each row's epoch, int64 `[rows, examples]`, on the CPU."""
        return torch.stack([self._order(trial_row, trial_row.epoch) for trial_row in self.trial_rows])

    def prepare(self, max_epochs: int) -> None:
        """Compute the orders of the next epoch."""
        after = [(trial_row, trial_row.epoch + 1) for trial_row in self.trial_rows if trial_row.epoch + 1 < max_epochs]
        self._prepared = {(id(trial_row), epoch): trial_row.loader.order(epoch).cpu() for trial_row, epoch in after}

    def _order(self, trial_row: TrialRow, epoch: int) -> Tensor:
        prepared = self._prepared.get((id(trial_row), epoch))
        return trial_row.loader.order(epoch).cpu() if prepared is None else prepared


class LockstepBatches(RowBatches):
    """Batches from each row's own loader, read in lockstep and stacked by form.

    If a loader raises, only its row fails; if a loader ends, its row takes no more steps in the epoch.
    """

    def __init__(self, trial_rows: list[TrialRow], device: torch.device) -> None:
        super().__init__(trial_rows)
        self._device = device
        self._reader = LockstepReader()
        self._step_bytes, self._step_rows = 0, 1

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self._device

    def steps(self) -> Iterator[StepBatches]:
        """Yield the steps of an epoch."""
        training = [row for row, each in enumerate(self.trial_rows) if not each.is_idle]
        loaders = {row: self.trial_rows[row].loader for row in training}
        lengths = {row: self.trial_rows[row].batches for row in training}
        for taken in read_in_lockstep(self._reader, self.trial_rows, loaders, lengths, self._device):
            size = sum(each.numel() * each.element_size() for stack in taken.stacks for each in stack.examples)
            if size > self._step_bytes:
                self._step_bytes, self._step_rows = size, sum(len(stack.rows) for stack in taken.stacks)
            yield taken

    def close(self) -> None:
        """End the worker processes."""
        self._reader.close()

    def held(self) -> int:
        """Return the bytes of the batches of a step, those of their stacks, and those that are read ahead."""
        return 2 * self._step_bytes + self._reader.read_ahead * self._step_bytes // self._step_rows


def read_in_lockstep(
    reader: LockstepReader,
    trial_rows: Sequence[TrialRow],
    loaders: Mapping[int, Any],
    lengths: Mapping[int, int | None],
    device: torch.device,
) -> Iterator[StepBatches]:
    """Yield the steps of an epoch of the rows that have a loader; a row whose loader raises is marked as failed.

    `lengths` are the numbers of batches that loaders must have; None for any.
    """
    rows = list(loaders)
    for index, found in enumerate(reader.epoch([loaders[row] for row in rows], [lengths[row] for row in rows])):
        batches: dict[int, Any] = {}
        for position, batch in found.items():
            if isinstance(batch, Exception):
                trial_rows[rows[position]].failure = described(batch)
            else:
                batches[rows[position]] = batch
        stacked = stacks(batches, device)
        yield StepBatches(index, lambda stacked=stacked: stacked)


def gather_batches(tensors: Sequence[Tensor], indices: Tensor) -> tuple[Tensor, ...]:
    """Return the examples of each row, `[rows, batch, ...]` each, by their indices `[rows, batch]` in all examples."""
    return tuple(t.index_select(0, indices.reshape(-1)).view(*indices.shape, *t.shape[1:]) for t in tensors)
