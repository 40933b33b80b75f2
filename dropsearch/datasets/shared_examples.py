"""Examples that two sets of a data module share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from dropsearch.core.batches import examples_of

MOST = 200_000
"""Largest training set whose examples are compared with others."""
BATCHES = 64


def share_of_equal_examples(known: Sequence[Tensor], batches: Iterable[Any]) -> float:
    """Return the share of the examples in the first batches that equal one of `known` `[examples, ...]`, in all parts.

    Zero if the sets cannot be compared.
    """
    if not known or len(known[0]) > MOST:
        return 0.0
    here, count, equal = {*map(hash, _rows(known))}, 0, 0
    for batch in islice(batches, BATCHES):
        rows = [*_rows(examples_of(batch))]
        count, equal = count + len(rows), equal + sum(hash(row) in here for row in rows)
    return equal / count if count else 0.0


def _rows(parts: Sequence[Tensor]) -> Iterable[bytes]:
    """Yield the bytes of each example; none if the parts have different lengths."""
    arrays = [
        part.detach().cpu().resolve_conj().contiguous().flatten(1).view(torch.uint8).numpy() for part in map(_2d, parts)
    ]
    if len({len(array) for array in arrays}) == 1:
        yield from (b"".join(array[index].tobytes() for array in arrays) for index in range(len(arrays[0])))


def _2d(part: Tensor) -> Tensor:
    return part.unsqueeze(1) if part.dim() == 1 else part


def common_examples(one: Any, other: Any) -> int:
    """Return how many examples two loaders share; 0 if their data sets differ or the indices are unknown."""
    (first, known), (second, others) = _indexed(one), _indexed(other)
    return len(known & others) if _is_same(first, second) else 0


def _indexed(loader: Any) -> tuple[Any, set[int]]:
    """Return the data set of a loader without subsets, and the indices of the examples there; none if unknown."""
    dataset, indices = getattr(loader, "dataset", None), _sampled(loader)
    while isinstance(dataset, Subset):
        indices = [int(dataset.indices[index]) for index in indices]
        dataset = dataset.dataset
    return dataset, {*indices}


def _sampled(loader: Any) -> Iterable[int]:
    """Return the indices that a loader can request from its data set; none if unknown."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset):
        return ()
    if loader.batch_size is None and loader.batch_sampler is not None:
        return ()
    sampler: Any = loader.sampler
    if type(sampler) is SubsetRandomSampler:
        return [int(index) for index in sampler.indices]
    if type(sampler) in (RandomSampler, SequentialSampler):
        return range(len(sampler.data_source))
    return ()


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two data sets are equal. A `setup` that runs once per stage creates equal tensors twice."""
    if one is other:
        return True
    if type(one) is not TensorDataset or type(other) is not TensorDataset or len(one.tensors) != len(other.tensors):
        return False
    return all(torch.equal(a, b) for a, b in zip(one.tensors, other.tensors, strict=True))
