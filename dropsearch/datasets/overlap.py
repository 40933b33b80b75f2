"""Whether two loaders share examples, as far as the indices of their samplers and subsets tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)


def common_examples(one: Any, other: Any) -> int:
    """Return how many examples of one set two loaders share; 0 where their sets differ, or it is not known."""
    first, second = _indexed(one), _indexed(other)
    if first is None or second is None or not _is_same(first[0], second[0]):
        return 0
    return len(first[1] & second[1])


def _indexed(loader: Any) -> tuple[Any, set[int]] | None:
    """Return the set that a loader's subset, or subset of a subset, lies in, and which of its examples it gives."""
    held = _sampled(loader)
    if held is None:
        return None
    dataset = loader.dataset
    while isinstance(dataset, Subset):
        held = [int(dataset.indices[index]) for index in held]
        dataset = dataset.dataset
    return dataset, set(held)


def _sampled(loader: Any) -> Iterable[int] | None:
    """Return the indices that a loader may ask its set for; None where that is not known."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset):
        return None
    if loader.batch_size is None and loader.batch_sampler is not None:
        return None
    sampler: Any = loader.sampler
    if type(sampler) is SubsetRandomSampler:
        return [int(index) for index in sampler.indices]
    if type(sampler) in (RandomSampler, SequentialSampler):
        return range(len(sampler.data_source))
    return None


def _is_same(one: Any, other: Any) -> bool:
    """Say whether two sets are one; a `setup` that runs for each stage makes the same tensors twice."""
    if one is other:
        return True
    if type(one) is not TensorDataset or type(other) is not TensorDataset or len(one.tensors) != len(other.tensors):
        return False
    return all(torch.equal(a, b) for a, b in zip(one.tensors, other.tensors, strict=True))
