"""Data modules whose training sets cannot be held in memory: each kind of loader in which people read data."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
)

EXAMPLES, FEATURES = 22, 64
"""Two whole batches of eight and a smaller one."""


def tensors(count: int = EXAMPLES, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return inputs and classes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, FEATURES, generator=generator, dtype=torch.float64)
    return x, (x[:, :20].sum(1) * 3).long() % 10


def torch_noise() -> float:
    return float(torch.rand(()))


GENERATOR = np.random.default_rng(3)


class Noisy(Dataset):
    """Adds noise to each example that is read."""

    def __init__(self, draw: Callable[[], float], count: int = EXAMPLES) -> None:
        self.x, self.y = tensors(count)
        self.draw = draw

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index] + self.draw(), self.y[index]


class OwnGenerator(Noisy):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.rng = np.random.default_rng(0)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index] + float(self.rng.random()), self.y[index]


class Broken(Noisy):
    """Cannot read some examples, which depend on the seed of the trial."""

    def __init__(self) -> None:
        super().__init__(torch_noise)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if random.random() < 0.02:
            raise ValueError("a broken example")
        return super().__getitem__(index)


class Flowing(IterableDataset):
    """Yields random examples."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = tensors()
        for index in range(len(x)):
            yield x[index] + random.random(), y[index]


class Stateful(IterableDataset):
    """Is its own iterator."""

    def __init__(self) -> None:
        self.x, self.y = tensors()
        self.at = 0

    def __iter__(self) -> Stateful:
        self.at = 0
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self.at == len(self.x):
            raise StopIteration
        self.at += 1
        return self.x[self.at - 1] + float(np.random.rand()), self.y[self.at - 1]


class Custom:
    """A loader that is no DataLoader."""

    def __init__(self) -> None:
        self.x, self.y = tensors()

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.x))
        for rows in order.split(8):
            yield self.x[rows], self.y[rows]


class Lengthening:
    """Has more batches in each epoch, and no length."""

    def __init__(self) -> None:
        self.x, self.y = tensors(64)
        self.epoch = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.epoch += 1
        for rows in torch.randperm(len(self.x)).split(8)[: self.epoch + random.randrange(3)]:
            yield self.x[rows], self.y[rows]


class Lying(Custom):
    """Has fewer batches than it says."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from list(super().__iter__())[:2]


class Alternating(Sampler[int]):
    """Counts its epochs, and has an order of its own for each."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return EXAMPLES

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        order = list(range(EXAMPLES))
        yield from order[:: -1 if self.epoch % 2 else 1]


def mixed(examples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Collate with weights that are drawn."""
    x, y = torch.stack([x for x, _ in examples]), torch.stack([y for _, y in examples])
    weight = float(np.random.beta(0.5, 0.5))
    return weight * x + (1 - weight) * x.flip(0), y


def ragged(examples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Collate to a number of examples that is drawn."""
    kept = examples[: random.randrange(2, 5)]
    return torch.stack([x for x, _ in kept]), torch.stack([y for _, y in kept])


def loader(dataset: Any, **options: Any) -> DataLoader:
    """Return a loader of batches of eight."""
    return DataLoader(dataset, **{"batch_size": 8, **options})


class Given(LightningDataModule):
    """Makes its training loader by a function.

    Args:
        make: Returns the loader.
        val: Returns the validation loader; None for one that is not random.
    """

    def __init__(self, make: Callable[[], Any], val: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self.make, self.val = make, val

    def train_dataloader(self) -> Any:
        return self.make()

    def val_dataloader(self) -> Any:
        return self.val() if self.val else DataLoader(TensorDataset(*tensors(10, 2)), batch_size=5)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


KINDS: dict[str, Callable[[], Any]] = {
    "torch": lambda: loader(Noisy(torch_noise), shuffle=True),
    "numpy": lambda: loader(Noisy(np.random.rand), shuffle=True, drop_last=True),
    "python": lambda: loader(Noisy(random.random)),
    "own generator": lambda: loader(OwnGenerator(), shuffle=True),
    "generator of a module": lambda: loader(Noisy(lambda: float(GENERATOR.random())), shuffle=True),
    "generator of the loader": lambda: loader(Noisy(torch_noise), shuffle=True, generator=generator()),
    "iterable": lambda: loader(Flowing()),
    "own iterator": lambda: loader(Stateful()),
    "weighted": lambda: loader(
        TensorDataset(*tensors()), sampler=WeightedRandomSampler([1.0, 2.0] * 11, 22, generator=generator())
    ),
    "batch sampler": lambda: DataLoader(
        TensorDataset(*tensors()), batch_sampler=BatchSampler(RandomSampler(range(22)), 8, drop_last=False)
    ),
    "sampler that counts": lambda: loader(TensorDataset(*tensors()), sampler=Alternating()),
    "no batches": lambda: DataLoader(
        TensorDataset(*tensors()), batch_size=None, sampler=BatchSampler(RandomSampler(range(22)), 8, drop_last=False)
    ),
    "collate": lambda: loader(Noisy(torch_noise), shuffle=True, collate_fn=mixed),
    "ragged": lambda: loader(Noisy(torch_noise), shuffle=True, collate_fn=ragged),
    "custom": Custom,
    "lengthening": Lengthening,
    "workers": lambda: loader(Noisy(torch_noise), shuffle=True, num_workers=2),
    "persistent workers": lambda: loader(OwnGenerator(), shuffle=True, num_workers=2, persistent_workers=True),
}
"""Loaders by what is special in them."""
