"""The order of a user's training set, as a function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from dropsearch.seeds import derived_seed


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
