"""Loaders derived from a user's loader: another order, a part of it, or its examples as tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from dropsearch._compat.data_loaders import mode_of
from dropsearch.core.batches import mapped
from dropsearch.datasets.batch_reader import options_of
from dropsearch.datasets.keyed_loader import keyed
from dropsearch.datasets.loaders import SeededSampler
from dropsearch.datasets.user_tensors import Examples, in_memory


def each_loader(given: Any) -> list[Any]:
    """Return all loaders in a loader, nested lists and mappings, or a `CombinedLoader`."""
    if isinstance(given, CombinedLoader):
        return list(given.flattened)
    if isinstance(given, Mapping):
        given = list(given.values())
    if isinstance(given, list | tuple):
        return [loader for each in given for loader in each_loader(each)]
    return [] if given is None else [given]


class Batches:
    """Batches that a function reads anew in each iteration."""

    def __init__(self, read: Callable[[], Iterator[Any]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Any]:
        return self._read()


class Combined:
    """Several loaders combined as by Lightning."""

    def __init__(self, loaders: Any) -> None:
        self._loader = loaders if isinstance(loaders, CombinedLoader) else CombinedLoader(loaders, "max_size_cycle")
        self.most: int | None = None

    def __iter__(self) -> Any:
        return itertools.islice((batch for batch, _, _ in self._loader), self.most)

    def __len__(self) -> int:
        combined = CombinedLoader(self._loader.iterables, mode_of(self._loader))
        iter(combined)  # its length needs iterators; those of keyed loaders start with their first batch
        count = len(combined)
        return count if self.most is None else min(count, self.most)


class Part:
    """The first `examples` examples of one or several loaders, unshuffled, in whole batches of the user's size.

    They are the same in each iteration: if reading is random, its random numbers are a function of the batch number.
    """

    def __init__(self, loader: Any, examples: int, *, is_random: bool = True) -> None:
        self._loader, self._is_random = in_order(loader), is_random
        first = next(iter(each_loader(loader)), loader)
        size = int(getattr(first, "batch_size", None) or 1)
        self.batches = max(-(-examples // size), 1)

    def __iter__(self) -> Any:
        loader = keyed(self._loader, 0, "part") if self._is_random else self._loader
        several = isinstance(loader, list | tuple | Mapping | CombinedLoader)
        yield from itertools.islice(Combined(loader) if several else loader, self.batches)


class OnDevice:
    """Batches that are cached on a device in the first iteration."""

    def __init__(self, loader: Any, device: torch.device) -> None:
        self._loader, self._device = loader, device
        self._cached: list[Any] | None = None

    def __iter__(self) -> Any:
        if self._cached is None:
            self._cached = [mapped(batch, lambda tensor: tensor.to(self._device)) for batch in self._loader]
        return iter(self._cached)


def rows_of(loader: Any) -> tuple[Examples | None, str]:
    """Return the training set as tensors, or None and the reason why that is not possible."""
    if type(loader) is not DataLoader:
        kind = f"{type(loader).__module__}.{type(loader).__qualname__}"
        owner = "a subclass of torch's DataLoader" if isinstance(loader, DataLoader) else "not a DataLoader of torch"
        return None, f"the training batches come from a {kind}, which is {owner}"
    if isinstance(loader.dataset, IterableDataset):
        return None, "the training set is an IterableDataset, whose order cannot be controlled"
    if loader.batch_size is None or type(loader.sampler) not in (RandomSampler, SequentialSampler):
        sampler = loader.batch_sampler if loader.batch_size is None else loader.sampler
        return None, f"the training loader has a custom sampler ({type(sampler).__name__})"
    if isinstance(loader.sampler, RandomSampler) and loader.sampler.replacement:
        return None, "the training set is sampled with replacement"
    if not covers(loader.sampler, loader.dataset):
        return None, "the sampler of the training loader covers only a part of the training set, or another data set"
    return in_memory(loader)


def covers(sampler: Any, dataset: Any) -> bool:
    """Return whether a sampler of torch yields each example of a data set once per epoch."""
    return (
        sampler.data_source is dataset and len(sampler) == len(dataset) and not getattr(sampler, "replacement", False)
    )


def is_shuffled(loader: DataLoader) -> bool:
    """Return whether a loader shuffles."""
    return isinstance(loader.sampler, RandomSampler)


def reordered(loader: DataLoader, seed: int, whole_batches: bool) -> DataLoader:
    """Return a copy of a loader whose shuffle is a function of the seed, or that drops incomplete batches."""
    is_random = type(loader.sampler) is RandomSampler and loader.batch_size is not None
    shuffled = is_random and covers(loader.sampler, loader.dataset)
    if not shuffled and not whole_batches:
        return loader
    return copied(
        loader,
        sampler=SeededSampler(len(loader.sampler), seed) if shuffled else loader.sampler,  # type: ignore[arg-type]
        drop_last=loader.drop_last or (whole_batches and len(loader.dataset) > (loader.batch_size or 1)),  # type: ignore[arg-type]
    )


def in_order(loader: Any) -> Any:
    """Return a copy of a DataLoader of an indexed set without shuffling; other loaders are returned unchanged."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        return loader
    return copied(loader, sampler=SequentialSampler(loader.dataset), drop_last=False, num_workers=0)  # type: ignore[arg-type]


def copied(loader: DataLoader, **changed: Any) -> DataLoader:
    """Return a copy of a loader with some of its options changed."""
    options = options_of(loader, changed.pop("num_workers", loader.num_workers))
    return DataLoader(loader.dataset, batch_size=loader.batch_size, **options, **changed)


def length(loader: Any) -> int:
    """Return the number of examples of a loader (of several, the first), or 1 if unknown."""
    loader = next(iter(each_loader(loader)), loader)
    try:
        return len(loader) and (examples(loader) or 1)
    except TypeError:
        return 1


def number_of_batches(loader: Any) -> int | None:
    """Return the number of batches of an epoch, or None if unknown."""
    try:
        return len(Combined(loader) if each_loader(loader) != [loader] else loader)
    except (NotImplementedError, TypeError):
        return None


def examples(loader: Any) -> int:
    """Return the number of examples of all data sets of a loader, or 0 if unknown."""
    if (several := each_loader(loader)) != [loader]:
        return sum(map(examples, several))
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return 0
