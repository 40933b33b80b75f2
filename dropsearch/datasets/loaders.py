"""Batches sliced from tensors that lie on one device already: no copies, no worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from dropsearch.core.seeds import derived_seed


class TensorLoader:
    """An iterable of batches, for a Lightning Trainer or a plain loop.

    Iterated again and again it moves through the epochs 0, 1, 2, ...; `set_epoch` says which comes next. An
    epoch counts as begun when its first batch is asked for.

    Args:
        tensors: Inputs and target, each ``[examples, ...]``, on one device.
        batch_size: Examples in a batch.
        seed: None for the order in which the examples lie; otherwise the order of an epoch is a pure function
            of seed, epoch and the number of examples, whatever the device.
        drop_last: Leave out the examples that do not fill a batch, so that all batches have one shape.

    Raises:
        ValueError: No tensors, tensors of different lengths, or a batch size below 1.
    """

    batch_sampler = None
    """None: Lightning asks whoever has a `sampler` for this too."""

    def __init__(
        self,
        tensors: tuple[Tensor, ...],
        batch_size: int,
        *,
        seed: int | None = None,
        drop_last: bool = False,
    ) -> None:
        if len({len(tensor) for tensor in tensors}) != 1:
            raise ValueError(f"tensors must have one length, got {[len(tensor) for tensor in tensors]}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.tensors = tensors
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self._next_epoch = 0

    @property
    def sampler(self) -> TensorLoader:
        """What Lightning calls `set_epoch` on: it looks for a sampler, and ours is the loader itself."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the one that is iterated next."""
        self._next_epoch = epoch

    def order(self, epoch: int) -> Tensor:
        """Return the examples of an epoch in their order, int64 ``[examples used]``, on the CPU."""
        examples = len(self.tensors[0])
        order = torch.arange(examples) if self.seed is None else shuffled(examples, self.seed, epoch)
        return order[: len(self) * self.batch_size] if self.drop_last else order

    def __len__(self) -> int:
        examples = len(self.tensors[0])
        return examples // self.batch_size if self.drop_last else -(-examples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        # A generator: Lightning makes its first iterator before it says which epoch it is.
        epoch = self._next_epoch
        self._next_epoch += 1
        order = self.order(epoch).to(self.tensors[0].device)
        for rows in order.split(self.batch_size)[: len(self)]:
            # index_select copies, so a model that works in place does not alter the data.
            yield tuple(tensor.index_select(0, rows) for tensor in self.tensors)


def shuffled(examples: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order of an epoch, int64 ``[examples]``, on the CPU, so that a GPU sees the same."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
    return torch.randperm(examples, generator=generator)


class SeededSampler(Sampler[int]):
    """Shuffles as `TensorLoader` does: the order of an epoch is a pure function of seed, epoch and size.

    Iterated again and again it moves through the epochs 0, 1, 2, ...; `set_epoch` says which comes next.
    """

    def __init__(self, examples: int, seed: int) -> None:
        self._examples, self._seed, self._next_epoch = examples, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the one that is iterated next."""
        self._next_epoch = epoch

    def __len__(self) -> int:
        return self._examples

    def __iter__(self) -> Iterator[int]:
        epoch = self._next_epoch
        self._next_epoch += 1
        yield from shuffled(self._examples, self._seed, epoch).tolist()
