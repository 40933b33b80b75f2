"""Private parts of torch's DataLoader and of Lightning's CombinedLoader."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader

_READING = ("__iter__", "_get_iterator", "_index_sampler", "_auto_collation")


def mode_of(loader: CombinedLoader) -> Any:
    """Return how a `CombinedLoader` combines its loaders, as its constructor takes it."""
    return loader._mode


def reads_as_torch_does(loader: Any) -> bool:
    """Return whether a loader is a DataLoader whose class does not change how it reads."""
    kind = type(loader)
    return isinstance(loader, DataLoader) and all(getattr(kind, name) is getattr(DataLoader, name) for name in _READING)


def without_iterator(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Let a copy of a loader start worker processes of its own, and return it."""
    loader._iterator = None
    return loader


def lend_workers(loader: DataLoader[Any], other: DataLoader[Any]) -> None:
    """Let the persistent worker processes of a loader be those of another one, which a Trainer ends."""
    other._iterator = loader._iterator


def iterator_of(loader: DataLoader[Any]) -> Any:
    """Return an iterator of a loader, with new worker processes where the persistent ones were ended."""
    if getattr(loader._iterator, "_shutdown", False):
        loader._iterator = None
    return iter(loader)


def end_workers(loader: DataLoader[Any]) -> None:
    """End the persistent worker processes of a loader, if it has any."""
    iterator: Any = loader._iterator
    loader._iterator = None
    if iterator is not None and hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()
