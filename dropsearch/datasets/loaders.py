"""Loaders of tensors on one device, without worker processes, in an order that depends on seed and epoch only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from dropsearch.core.batches import TUPLE, BatchForm
from dropsearch.core.seeds import derived_seed


class TensorLoader:
    """An iterable of batches, for a Lightning Trainer or a plain loop.

    Each iteration is the next epoch: 0, 1, 2, …; `set_epoch` changes the next one. An epoch starts when its first batch
    is requested.

    Args:
        tensors: Inputs and target, each ``[examples, ...]``, on one device.
        batch_size: Number of examples per batch.
        seed: Seed of the order; None keeps the order of the examples. The order of an epoch is a function of seed,
            epoch and number of examples, on all devices.
        drop_last: Drop the last incomplete batch, so that all batches have the same shape.
        subset: Indices of the examples to use, int64 ``[used]`` on the CPU; None for all of `tensors`.
        form: Form of the batches; a tuple by default.

    Raises:
        ValueError: There are no tensors, they have different lengths, or the batch size is below 1.
    """

    batch_sampler = None
    """Read by Lightning from every loader that has a `sampler`."""

    def __init__(
        self,
        tensors: tuple[Tensor, ...],
        batch_size: int,
        *,
        seed: int | None = None,
        drop_last: bool = False,
        subset: Tensor | None = None,
        form: BatchForm = TUPLE,
    ) -> None:
        if len({len(tensor) for tensor in tensors}) != 1:
            raise ValueError(f"tensors must have equal lengths, got {[len(tensor) for tensor in tensors]}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.tensors = tensors
        self.form = form
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.subset = subset
        self._next_epoch = 0

    @property
    def sampler(self) -> TensorLoader:
        """The loader itself, since Lightning calls `set_epoch` of the sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self._next_epoch = epoch

    def order(self, epoch: int) -> Tensor:
        """Return the indices in `tensors` of an epoch's examples, in order, int64 ``[used examples]``, on the CPU."""
        examples = self._examples
        order = torch.arange(examples) if self.seed is None else shuffled(examples, self.seed, epoch)
        order = order if self.subset is None else self.subset[order]
        return order[: len(self) * self.batch_size] if self.drop_last else order

    def __len__(self) -> int:
        examples = self._examples
        return examples // self.batch_size if self.drop_last else -(-examples // self.batch_size)

    @property
    def _examples(self) -> int:
        return len(self.tensors[0]) if self.subset is None else len(self.subset)

    def __iter__(self) -> Iterator[Any]:
        # A generator function, since Lightning creates its first iterator before it sets the epoch.
        epoch = self._next_epoch
        self._next_epoch += 1
        order = self.order(epoch).to(self.tensors[0].device)
        for rows in order.split(self.batch_size)[: len(self)]:
            # index_select copies, so in-place operations of a model do not change the data.
            yield self.form.build(tuple(tensor.index_select(0, rows) for tensor in self.tensors))


def shuffled(examples: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order of an epoch, int64 ``[examples]``; it is computed on the CPU for all devices."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
    return torch.randperm(examples, generator=generator)


class SeededSampler(Sampler[int]):
    """A sampler that shuffles like `TensorLoader`; each iteration is the next epoch, and `set_epoch` changes it."""

    def __init__(self, examples: int, seed: int) -> None:
        self._examples, self._seed, self._next_epoch = examples, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self._next_epoch = epoch

    def __len__(self) -> int:
        return self._examples

    def __iter__(self) -> Iterator[int]:
        epoch = self._next_epoch
        self._next_epoch += 1
        yield from shuffled(self._examples, self._seed, epoch).tolist()
