"""Private attributes of torch's DataLoader and of Lightning's CombinedLoader."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader

_READING = ("__iter__", "_get_iterator", "_index_sampler", "_auto_collation")


def mode_of(loader: CombinedLoader) -> Any:
    """Return the `mode` argument that a `CombinedLoader` was constructed with."""
    return loader._mode


def reads_as_torch_does(loader: Any) -> bool:
    """Return whether a loader is a DataLoader whose class does not override iteration."""
    kind = type(loader)
    return isinstance(loader, DataLoader) and all(getattr(kind, name) is getattr(DataLoader, name) for name in _READING)


def without_iterator(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Reset the iterator of a copied loader, so that it starts new worker processes; return the loader."""
    loader._iterator = None
    return loader


def lend_workers(loader: DataLoader[Any], other: DataLoader[Any]) -> None:
    """Give the persistent worker processes of a loader to another loader, whose workers a Trainer shuts down."""
    other._iterator = loader._iterator


def iterator_of(loader: DataLoader[Any]) -> Any:
    """Return an iterator of a loader; persistent worker processes that have ended are restarted."""
    if getattr(loader._iterator, "_shutdown", False):
        loader._iterator = None
    return iter(loader)


def end_workers(loader: DataLoader[Any]) -> None:
    """End the persistent worker processes of a loader, if it has any."""
    iterator: Any = loader._iterator
    loader._iterator = None
    if iterator is not None and hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()
