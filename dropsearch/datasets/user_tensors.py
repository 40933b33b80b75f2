"""Loading of a user's training set into tensors, if that gives the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from dropsearch.core.batches import BatchForm, examples_of, form_of, is_packed, same
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.global_state import generator_states
from dropsearch.core.user_errors import message_of

LARGEST = 2**30
"""Maximum size of a training set that is held in memory, in bytes."""
CHECKED = 8
"""Number of examples that are read twice to detect randomness."""
RANDOM = "the training examples are random, for example because of augmentation"


@dataclass(frozen=True)
class Examples:
    """A training set in memory."""

    tensors: tuple[Tensor, ...]
    """All examples, `[examples, ...]` each."""
    form: BatchForm
    """Builds the user's batches from them."""


def in_memory(loader: DataLoader[Any]) -> tuple[Examples | None, str]:
    """Return all examples of a loader's data set, or None and the reason why not.

    A batch is any container that `core.batches` traverses. Its tensors stack examples, `[batch, ...]`; its other leaves
    must be the same in each batch, or unused.

    Impossible if reading draws random numbers or changes between reads, if a batch differs from its stacked examples
    (padding, a custom collate function), or if the data is too large.
    """
    before = generator_states()
    try:
        first = [loader.dataset[index] for index in range(min(CHECKED, len(loader.dataset)))]  # type: ignore[arg-type]
        again = [loader.dataset[index] for index in range(len(first))]
        batch, repeated = loader.collate_fn(first), loader.collate_fn(again)
    except Exception as error:
        return None, f"the training set cannot be read by index ({type(error).__name__}: {message_of(error)})"
    examples = examples_of(batch)
    if not examples:
        return None, f"a training batch is a {type(batch).__name__} without tensors that could be stacked"
    if not _same(examples, examples_of(repeated)) or generator_states() != before:
        return None, RANDOM
    alone = [examples_of(loader.collate_fn([example])) for example in first]
    if is_packed(batch) or len({len(part) for part in examples}) > 1 or not _same(examples, _joined(alone)):
        return None, "a training batch differs from its stacked examples, for example because of padding"
    bytes_each = sum(part[0].numel() * part.element_size() for part in examples)
    if bytes_each * len(loader.dataset) > LARGEST:  # type: ignore[arg-type]
        return None, f"the training set takes more than {LARGEST >> 30} GiB of memory"
    found = _read_all(loader)
    return (None, RANDOM) if generator_states() != before else found


def _read_all(loader: DataLoader[Any]) -> tuple[Examples | None, str]:
    reader = DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=SequentialSampler(loader.dataset),  # type: ignore[arg-type]
        collate_fn=loader.collate_fn,
        generator=torch.Generator(),  # by default a loader draws from the global generator
    )
    batches = list(reader)
    try:
        form = form_of([batch for batch in batches if len(examples_of(batch)[0]) == loader.batch_size] or batches)
    except UnsupportedError as error:
        return None, str(error)
    parts = [examples_of(batch) for batch in batches]
    if len({tuple(part.shape[1:] for part in batch) for batch in parts}) > 1:
        return None, "the training examples have different shapes"
    return Examples(_joined(parts), form), ""


def _joined(batches: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    try:
        return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    except (RuntimeError, ValueError):  # different shapes or numbers of tensors
        return ()


def _same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(map(same, one, other))
