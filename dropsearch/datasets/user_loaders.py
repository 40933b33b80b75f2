"""Loaders derived from a user's loader: another order, a part of it, or groups of its examples."""

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


MOST, FEWEST = 25, 6
"""Number of groups; with fewer, the variance between examples cannot be estimated."""


class ExampleGroups:
    """The examples of a loader in groups of equal size, or its batches if examples cannot be indexed.

    `pick` returns a loader of the units (examples or batches) with the given ascending indices.
    """

    def __init__(self, units: int, pick: Callable[[list[int]], Any]) -> None:
        count = min(MOST, units)
        order = torch.randperm(units, generator=torch.Generator().manual_seed(0)).tolist()
        self._groups = [sorted(order[group::count]) for group in range(count)]
        self._pick = pick

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def sizes(self) -> list[int]:
        """Number of units of each group."""
        return [len(group) for group in self._groups]

    def only(self, group: int) -> Any:
        """Return a loader of one group."""
        return self._pick(self._groups[group])

    def without(self, group: int) -> Any:
        """Return a loader of all other groups."""
        return self._pick(sorted(unit for other in self._groups if other is not self._groups[group] for unit in other))


def example_groups(loader: Any) -> ExampleGroups | None:
    """Return the groups of a loader's examples, or None if it has fewer than `FEWEST` examples or batches."""
    if _is_indexed(loader):
        units = len(loader.dataset)
        pick: Callable[[list[int]], Any] = lambda chosen: copied(  # noqa: E731
            loader, sampler=chosen, drop_last=False, num_workers=0
        )
    else:
        units = sum(1 for _ in loader)
        pick = lambda chosen: _Batches(loader, frozenset(chosen))  # noqa: E731
    return ExampleGroups(units, pick) if units >= FEWEST else None


def _is_indexed(loader: Any) -> bool:
    return (
        type(loader) is DataLoader
        and not isinstance(loader.dataset, IterableDataset)
        and loader.batch_size is not None
        and hasattr(loader.sampler, "data_source")
        and covers(loader.sampler, loader.dataset)
    )


class _Batches:
    def __init__(self, loader: Any, chosen: frozenset[int]) -> None:
        self._loader, self._chosen = loader, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[Any]:
        return (batch for index, batch in enumerate(self._loader) if index in self._chosen)
