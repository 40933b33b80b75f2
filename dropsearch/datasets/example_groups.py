"""Random groups of a loader's examples, so that a metric can be measured on each group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from dropsearch.datasets.user_loaders import copied, covers

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
