"""A user's data for the rows of vectorized training: from memory, or from a loader for each row."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

import torch

from dropsearch.core.records import TrialSpec
from dropsearch.datasets.batch_hooks import BatchHooks
from dropsearch.datasets.given_loaders import GivenLoaders
from dropsearch.datasets.keyed_loader import keying_of
from dropsearch.datasets.loaders import TensorLoader
from dropsearch.datasets.user_loaders import Combined, OnDevice, each_loader, is_shuffled
from dropsearch.datasets.user_tensors import Examples


class _RowData:
    """User data (`UserData`) for the rows of vectorized training; all trials have the same examples."""

    def __init__(self, data: Any, device: torch.device) -> None:
        self._data, self.device = data, device
        self.validates_by_row, self.part_every = data.validates_by_row, data.part_every
        self.datamodule = None if isinstance(data.module, GivenLoaders) else data.module
        self._after_hooks: Callable[[Any], Any] = data.after_hooks

    @property
    def hooks(self) -> BatchHooks:
        return self._data.hooks

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
