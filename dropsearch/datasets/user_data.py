"""A LightningDataModule of the user's own, as the source of batches that training needs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dropsearch._compat.lightning import is_lightning_class
from dropsearch.core.errors import InputError
from dropsearch.core.global_rng import seeded
from dropsearch.datasets.batch_digest import arguments_of, digest
from dropsearch.datasets.loaders import TensorLoader
from dropsearch.datasets.overlap import common_examples
from dropsearch.datasets.user_loaders import (
    OnDevice,
    Part,
    examples,
    is_shuffled,
    length,
    reordered,
    rows_of,
)

HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class UserData:
    """What the user's data module gives, in an order that is a function of a trial's seed.

    Where the training set is indexed and its examples are tensors that fit in memory, `rows` is the same data as
    tensors, from which arrays take their batches. Both give the same batches in the same order: examples that do
    not fill a batch are left out of an epoch then.

    Args:
        module: The data module: `train_dataloader` and `val_dataloader` are needed.
        name: What reports call it.
        seed: Seeds what `setup` draws, so that a study that is continued splits as before.

    Raises:
        InputError: The data module fails, or has no training or validation batches.
    """

    def __init__(self, module: Any, name: str, seed: int = 0) -> None:
        self.module, self.name, self._seed = module, name, seed
        with seeded(seed):  # reading may draw random numbers, which are nobody else's business
            self._asked("prepare_data")
            self._set_up("fit")
            self._train, self._val = self._loader("train_dataloader"), self._loader("val_dataloader")
            self._test = self._test_loader()
            self.rows, self.incompatibility = rows_of(self._train)
            self._hooks = [hook for hook in HOOKS if defines(module, hook)]
            if self._hooks and self.rows is not None:
                self.rows, self.incompatibility = None, f"the data module overrides {self._hooks[0]}"
            self._part_size = length(self._val)
        with seeded(seed):
            self.digest = self._sha256()
            """Of the training set in memory or its first batch, the first validation batch, the sizes and the
            arguments of the data module: what a continued study must share."""

    def _set_up(self, stage: str) -> None:
        # The same stream for each stage: a `setup` that splits at random splits alike for training and for the test.
        with seeded(self._seed):
            self._asked("setup", stage)

    def _asked(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self.module, method)(*arguments)
        except Exception as error:
            said = " ".join(str(error).split())[:300]
            raise InputError(f"data={self.name} failed in {method}: {type(error).__name__}: {said}") from error

    def _loader(self, method: str) -> Any:
        loader = self._asked(method) if defines(self.module, method) else None
        if isinstance(loader, list | tuple) and len(loader) == 1:
            loader = loader[0]
        if isinstance(loader, list | tuple | Mapping) and method == "val_dataloader":
            raise InputError(
                f"data={self.name} must return one loader from {method}, got {len(loader)}: one set chooses"
            )
        if loader is None or length(loader) == 0:
            raise InputError(f"data={self.name} must return batches from {method}, got none: define {method}")
        return loader

    def _test_loader(self) -> Any:
        if not defines(self.module, "test_dataloader"):
            return None
        self._set_up("test")
        loader = self._asked("test_dataloader")
        return loader[0] if isinstance(loader, list | tuple) and loader else loader

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of these data, a line each."""
        return (*self._left_out(), *self._overlaps(), *self._order())

    def _left_out(self) -> Iterator[str]:
        if self.left_out:
            yield f"{self.left_out} training examples that do not fill a batch are left out of each epoch"

    def _order(self) -> Iterator[str]:
        kind = type(self._train)
        if isinstance(self._train, DataLoader) and kind is not DataLoader:
            yield (
                f"{kind.__name__} is a DataLoader of its own: it gives batches in its own order, which follows from a "
                "trial's seed only where it draws from the global random numbers"
            )

    def _overlaps(self) -> Iterator[str]:
        for part, loader in (("val", self._val), ("test", self._test)):
            shared = common_examples(self._train, loader)
            if shared:
                yield (
                    f"{shared} of {examples(loader)} {part} examples of data={self.name} are training examples too, so "
                    f"{part} figures are too good: split with a generator of a fixed seed"
                )

    def to(self, device: torch.device | str) -> UserData:
        """Move the tensors of `rows` to a device, once; the user's own loaders stay as they are."""
        if self.rows is not None:
            self.rows = tuple(tensor.to(device) for tensor in self.rows)
        return self

    def in_rows(self) -> UserDataRows | None:
        """Return the same data from tensors in memory, for an array; None where `incompatibility` says why not."""
        return None if self.rows is None else UserDataRows(self, self.rows)

    @property
    def batch_size(self) -> int:
        """How many examples a training batch holds, 0 where the loader does not say it."""
        size = int(getattr(self._train, "batch_size", None) or 0)
        return min(size, len(self.rows[0])) if self.rows is not None else size

    @property
    def left_out(self) -> int:
        """How many examples of an epoch are left out, since they do not fill a batch."""
        return len(self.rows[0]) % self.batch_size if self.rows is not None else 0

    @property
    def changes_batches(self) -> bool:
        """Whether the data module has hooks on batches, so that a loader's batch is not yet what the module gets."""
        return bool(self._hooks)

    @property
    def uses_workers(self) -> bool:
        """Whether a loader has worker processes, which a training process of ours cannot start."""
        return any(getattr(loader, "num_workers", 0) for loader in (self._train, self._val, self._test))

    def train_loader(self, seed: int) -> Any:
        """Return the user's training batches, in an order that is a function of `seed` and epoch."""
        if type(self._train) is not DataLoader:  # a subclass may have an `__iter__` of its own
            return self._asked("train_dataloader")
        return reordered(self._train, seed, self.rows is not None)

    def for_trainer(self, seed: int) -> dict[str, Any]:
        """Return what `Trainer.fit` takes its batches from."""
        train, val = self.train_loader(seed), self._val
        return {"datamodule": _prepared(self.module, train_dataloader=train, val_dataloader=val)}

    def for_test(self, step: str) -> dict[str, Any]:
        """Return what `Trainer.test` or `Trainer.validate` takes the test set from; `step` says which of them asks."""
        if self._hooks:
            return {"datamodule": _prepared(self.module, **{f"{step}_dataloader": self._test})}
        return {"dataloaders": self._test}

    def train_part_loader(self) -> Any:
        """Return a fixed part of the training set, as large as the validation set, in order."""
        return Part(self._train, self._part_size)

    def val_dataloader(self) -> Any:
        """Return the user's validation batches."""
        return self._val

    def test_dataloader(self) -> Any:
        """Return the user's test batches, None where there are none."""
        return self._test

    @property
    def has_test(self) -> bool:
        """Whether there is a test set."""
        return self._test is not None

    @property
    def description(self) -> str:
        """What there is, in words."""
        known = [f"{size:,} {part}" for part, size in self.sizes.items() if size]
        where = "" if self.rows is None else ", the training set in memory"
        return f"{' and '.join(known) or 'unknown numbers of'} examples from {self.source}{where}"

    @property
    def sizes(self) -> dict[str, int]:
        """How many examples train, val and test hold; 0 where that is not known."""
        loaders = {"train": self._train, "val": self._val, "test": self._test}
        return {part: examples(loader) for part, loader in loaders.items()}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of an example's first tensor, empty where that is not known."""
        return tuple(self.rows[0].shape[1:]) if self.rows is not None else ()

    @property
    def classes(self) -> None:
        """None: what the targets mean is the user's."""

    @property
    def layout(self) -> None:
        """None: what the inputs mean is the user's."""

    def _sha256(self) -> str:
        train = self.rows or next(iter(Part(self._train, 1)), ())
        return digest(self.sizes, arguments_of(self.module), train, next(iter(self._val), ()))

    @property
    def source(self) -> str:
        """The class that the data comes from."""
        return f"{type(self.module).__module__}.{type(self.module).__qualname__}"


class UserDataRows:
    """The user's data from tensors in memory: the order and the batches are those of the user's own loaders."""

    def __init__(self, data: UserData, rows: tuple[Tensor, ...]) -> None:
        self._data, self._rows = data, rows

    def train_loader(self, seed: int) -> TensorLoader:
        """Return the training batches, in an order that is a function of `seed` and epoch."""
        order = seed if is_shuffled(self._data._train) else None
        return TensorLoader(self._rows, self._data.batch_size, seed=order, drop_last=True)

    def train_part_loader(self) -> Any:
        """Return a fixed part of the training set, as large as the validation set, in order."""
        return OnDevice(self._data.train_part_loader(), self._rows[0].device)

    def val_dataloader(self) -> Any:
        """Return the user's validation batches."""
        return OnDevice(self._data.val_dataloader(), self._rows[0].device)


def _prepared(module: Any, **loaders: Any) -> Any:
    """Return a copy of a data module that has been set up and gives these loaders, as ``self.trainer.datamodule``."""
    twin = copy.copy(module)
    for name in ("prepare_data", "setup", "teardown"):
        twin.__dict__[name] = lambda *_, **__: None
    for name, loader in loaders.items():
        twin.__dict__[name] = lambda loader=loader: loader
    return twin


def defines(module: Any, method: str) -> bool:
    """Say whether a class defines a method itself, below Lightning's own classes."""
    owner = next((c for c in type(module).__mro__ if method in c.__dict__), None)
    return owner is not None and not is_lightning_class(owner)
