"""Reads a user's training set into tensors, if that gives the same batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from dropsearch.core.global_rng import generator_states

LARGEST = 2**30
"""Maximum size of a training set that is held in memory, in bytes."""
CHECKED = 8
"""Number of examples that are read twice to detect randomness."""
RANDOM = "the training examples are random, for example because of augmentation"


def in_memory(loader: DataLoader[Any]) -> tuple[tuple[Tensor, ...] | None, str]:
    """Return all examples of a loader's data set as tensors ``[examples, ...]``, or None and the reason why not.

    It is not possible if reading draws random numbers or changes between reads, if a batch differs from its stacked
    examples (padding, a custom collate function), if a batch is not a tuple of tensors, or if the data is too large.
    """
    before = generator_states()
    try:
        first = [loader.dataset[index] for index in range(min(CHECKED, len(loader.dataset)))]  # type: ignore[arg-type]
        again = [loader.dataset[index] for index in range(len(first))]
        batch, repeated = loader.collate_fn(first), loader.collate_fn(again)
    except Exception as error:
        return None, f"the training set cannot be read by index ({type(error).__name__}: {_line(error)})"
    if not _is_tensors(batch):
        return None, f"a training batch is a {_kind(batch)}, not a tuple of tensors"
    if not _same(batch, repeated) or generator_states() != before:
        return None, RANDOM
    alone = [loader.collate_fn([example]) for example in first]
    if not all(_is_tensors(one) and len(one) == len(batch) for one in alone) or not _same(batch, _joined(alone)):
        return None, "a training batch differs from its stacked examples, for example because of padding"
    bytes_each = sum(part[0].numel() * part.element_size() for part in _joined(alone))
    if bytes_each * len(loader.dataset) > LARGEST:  # type: ignore[arg-type]
        return None, f"the training set takes more than {LARGEST >> 30} GiB of memory"
    rows, incompatibility = _read_all(loader)
    return (None, RANDOM) if generator_states() != before else (rows, incompatibility)


def _read_all(loader: DataLoader[Any]) -> tuple[tuple[Tensor, ...] | None, str]:
    reader = DataLoader(
        loader.dataset,
        batch_size=256,
        sampler=SequentialSampler(loader.dataset),  # type: ignore[arg-type]
        collate_fn=loader.collate_fn,
        generator=torch.Generator(),  # by default a loader draws from the global generator
    )
    batches = list(reader)
    if len({tuple(part.shape[1:] for part in batch) for batch in batches}) > 1:
        return None, "the training examples have different shapes"
    return _joined(batches), ""


def _joined(batches: list[Any]) -> tuple[Tensor, ...]:
    try:
        return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    except RuntimeError:  # different shapes
        return ()


def _is_tensors(batch: Any) -> bool:
    plain = type(batch) in (list, tuple) and all(isinstance(part, Tensor) and part.dim() for part in batch)
    return plain and len(batch) > 0 and len({len(part) for part in batch}) == 1


def _same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
        for a, b in zip(one, other, strict=True)
    )


def _kind(batch: Any) -> str:
    return "tensor" if isinstance(batch, Tensor) else type(batch).__name__


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
