"""What is done with a loader that somebody else made: another order, a part of it, its examples as tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from dropsearch.datasets.loaders import SeededSampler
from dropsearch.datasets.user_tensors import in_memory


class Part:
    """The first examples of a loader's set, unshuffled, in the user's own batches."""

    def __init__(self, loader: Any, examples: int) -> None:
        self._loader = in_order(loader)
        size = int(getattr(loader, "batch_size", None) or 1)
        self._batches = max(-(-examples // size), 1)

    def __iter__(self) -> Any:
        for index, batch in enumerate(self._loader):
            if index == self._batches:
                return
            yield batch


class OnDevice:
    """Batches of tensors, each batch a tuple on one device, kept there once they were read."""

    def __init__(self, loader: Any, device: torch.device) -> None:
        self._loader, self._device = loader, device
        self._kept: list[tuple[Tensor, ...]] | None = None

    def __iter__(self) -> Any:
        if self._kept is None:
            self._kept = [tuple(part.to(self._device) for part in batch) for batch in self._loader]
        return iter(self._kept)


def rows_of(loader: Any) -> tuple[tuple[Tensor, ...] | None, str]:
    """Return the training set as tensors, or None and why it cannot be."""
    if type(loader) is not DataLoader:
        return None, f"the training batches come from a {type(loader).__name__}, not a DataLoader"
    if isinstance(loader.dataset, IterableDataset):
        return None, "the training set is iterable, so its order is not ours to choose"
    if loader.batch_size is None or type(loader.sampler) not in (RandomSampler, SequentialSampler):
        sampler = loader.batch_sampler if loader.batch_size is None else loader.sampler
        return None, f"the training set has a sampler of its own ({type(sampler).__name__})"
    if isinstance(loader.sampler, RandomSampler) and loader.sampler.replacement:
        return None, "the training set is sampled with replacement"
    if not _covers(loader.sampler, loader.dataset):
        return None, "the training set has a sampler that covers a part of it, or another set"
    return in_memory(loader)


def _covers(sampler: Any, dataset: Any) -> bool:
    """Say whether one of torch's own samplers gives each example of a set once an epoch."""
    return (
        sampler.data_source is dataset and len(sampler) == len(dataset) and not getattr(sampler, "replacement", False)
    )


def is_shuffled(loader: DataLoader) -> bool:
    """Return whether a loader shuffles its set."""
    return isinstance(loader.sampler, RandomSampler)


def reordered(loader: DataLoader, seed: int, whole_batches: bool) -> DataLoader:
    """Return the loader again with a shuffle that is a function of the seed; another sampler stays as it is."""
    plain = type(loader.sampler) is RandomSampler and loader.batch_size is not None
    shuffled = plain and _covers(loader.sampler, loader.dataset)
    if not shuffled and not whole_batches:
        return loader
    return _copied(
        loader,
        sampler=SeededSampler(len(loader.sampler), seed) if shuffled else loader.sampler,  # type: ignore[arg-type]
        drop_last=loader.drop_last or (whole_batches and len(loader.dataset) > (loader.batch_size or 1)),  # type: ignore[arg-type]
    )


def in_order(loader: Any) -> Any:
    """Return the loader without its shuffle, where it is a DataLoader over an indexed set."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        return loader
    return _copied(loader, sampler=SequentialSampler(loader.dataset), drop_last=False, num_workers=0)  # type: ignore[arg-type]


def _copied(loader: DataLoader, **changed: Any) -> DataLoader:
    workers = changed.pop("num_workers", loader.num_workers)
    kept: dict[str, Any] = {
        "batch_size": loader.batch_size,
        "collate_fn": loader.collate_fn,
        "pin_memory": loader.pin_memory,
        "worker_init_fn": loader.worker_init_fn,
        "num_workers": workers,
    }
    if workers:
        kept |= {
            "timeout": loader.timeout,
            "multiprocessing_context": loader.multiprocessing_context,
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": loader.persistent_workers,
        }
    return DataLoader(loader.dataset, **kept, **changed)


def length(loader: Any) -> int:
    """Return how many examples a loader gives, as far as it says: at least 1 where it does not."""
    try:
        return len(loader) and (examples(loader) or 1)
    except TypeError:
        return 1


def examples(loader: Any) -> int:
    """Return how many examples a loader's set holds, 0 where that is not known."""
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return 0
