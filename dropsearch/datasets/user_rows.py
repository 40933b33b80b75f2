"""A user's data for the rows of vectorized training: from memory, or from a loader for each row."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from dropsearch.core.batches import BatchForm, examples_of, form_of, is_packed, same
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.global_state import generator_states
from dropsearch.core.records import TrialSpec
from dropsearch.core.user_errors import message_of
from dropsearch.datasets.given_loaders import GivenLoaders
from dropsearch.datasets.keyed_loader import keying_of
from dropsearch.datasets.loaders import TensorLoader
from dropsearch.datasets.user_loaders import Combined, OnDevice, covers, each_loader, is_shuffled
from dropsearch.datasets.user_parts import BatchHooks

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


class _RowData:
    """User data (`UserData`) for the rows of vectorized training; all trials have the same examples."""

    def __init__(self, data: Any, device: torch.device) -> None:
        self._data, self.device = data, device
        self.validates_by_row, self.part_every = data.validates_by_row, data.part_every
        self.datamodule = None if isinstance(data.module, GivenLoaders) else data.module
        self.hooks: BatchHooks = data.hooks
        self._after_hooks: Callable[[Any], Any] = data.after_hooks

    def before_hooks(self) -> Self:
        """Return the same data, whose batches the batch transfer hooks have not changed."""
        twin = copy.copy(self)
        twin._after_hooks = lambda loader: loader
        return twin

    def for_trial(self, spec: TrialSpec) -> Self:
        return self

    def val_loader(self, seed: int) -> Any:
        return self._after_hooks(self._data.val_loader(seed))

    def train_part_loader(self) -> Any:
        """Return a fixed part of the training set (see `UserData`), in order."""
        return OnDevice(self._after_hooks(self._data.train_part_loader()), self.device)

    def val_dataloader(self) -> Any:
        return OnDevice(self._after_hooks(self._data.val_dataloader()), self.device)


class UserDataRows(_RowData):
    """The user's data from tensors in memory, with the same batches in the same order as the user's loaders."""

    def __init__(self, data: Any, rows: Examples) -> None:
        super().__init__(data, rows.tensors[0].device)
        self._rows = rows

    def train_loader(self, seed: int) -> TensorLoader:
        """Return the training batches, in an order that is a function of `seed` and epoch."""
        order = seed if is_shuffled(self._data._train) else None
        return TensorLoader(self._rows.tensors, self._data.batch_size, seed=order, drop_last=True, form=self._rows.form)


class UserDataLockstep(_RowData):
    """User data of which each row reads its own loader, in lockstep."""

    reads_by_row = True

    @property
    def most_rows(self) -> int | None:
        """Maximum number of rows that may read at the same time; None for any number."""
        return self._data.most_rows

    def train_loader(self, seed: int) -> Any:
        """Return the training batches of a trial, a function of `seed`, epoch and batch number."""
        loader = self._after_hooks(self._data.train_loader(seed))
        return loader if keying_of(loader) is not None else Combined(loader)

    def train_part_loader(self) -> Any:
        """Return a fixed part of the training set (see `UserData`).

        There is none for several training loaders, whose combined batches do not suit a validation step.
        """
        is_one = len(each_loader(self._data._train)) == 1
        return super().train_part_loader() if is_one else ()
