"""Data sets that fit in memory, as Lightning data modules."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor

from dropsearch.core.constraints import Constraint, argument_problems
from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialSpec
from dropsearch.datasets.catalogue import DATA_SETS, DataSet, describe
from dropsearch.datasets.loaders import TensorLoader
from dropsearch.datasets.raw_data import read_raw_data, scale_of
from dropsearch.datasets.splits import EVAL_BATCH, Splits, TensorSplit, split

__all__ = ["DATA_SETS", "DataSet", "TensorDataModule"]

_HELD = ("_examples", "_test")
COUNT = Constraint("int", at_least=1, at_most=1_000_000_000)


class TensorDataModule(LightningDataModule):
    """A built-in data set, split, standardized by its training set, and batched from tensors on one device.

    Batches are ``(x [batch, channels, height, width], y [batch])`` for images,
    ``(x [batch, channels, length], y)`` for signals and ``(x [batch, longest, features], lengths [batch], y)``
    for sequences, zero-padded. x is float32, lengths and y are int64.

    Args:
        name: One of `DATA_SETS`.
        root: Folder of fetched data sets.
        batch_size: Batch size in training.
        train_size: Number of training examples, a stratified subset; None for all.
        val_fraction: Share of the validation set among training and validation examples, in (0, 1).
        seed: Seed of the split in a search, and of the order of `train_dataloader`.

    Raises:
        InputError: A value is out of range. Files, and sizes that depend on them, are checked in `setup`.
    """

    has_test = True
    redraws_split = True
    """Whether each confirmation seed draws its own training and validation set."""
    uses_workers = False
    """Whether a loader has worker processes."""
    changes_batches = False
    """Whether batch transfer hooks change the loaders' batches."""
    obstacles: tuple[str, ...] = ()
    """Why stacked rows cannot use these data."""
    parts = ()
    """User objects that the data come from."""
    reading = "from examples in memory"
    """Description of the source of the rows' batches."""
    notes: tuple[str, ...] = ()
    overlaps: tuple[str, ...] = ()
    """Caveats about the data for the report."""

    def __init__(
        self,
        name: str,
        *,
        root: str | Path = "data",
        batch_size: Annotated[int, COUNT] = 64,
        train_size: Annotated[int | None, COUNT] = None,
        val_fraction: Annotated[float, Constraint("float", above=0, below=1)] = 0.2,
        seed: Annotated[int, Constraint("int", at_least=0)] = 0,
    ) -> None:
        super().__init__()
        given = {"batch_size": batch_size, "train_size": train_size, "val_fraction": val_fraction, "seed": seed}
        problem = next(argument_problems(type(self), given, "data."), None)
        if problem:
            raise InputError(problem)
        self.data_set = describe(name)
        self.name: str = name  # pyright: ignore[reportIncompatibleVariableOverride]
        self.root = Path(root).expanduser()
        self.batch_size = batch_size
        self.train_size = train_size
        self.val_fraction = val_fraction
        self.seed = seed
        self.input_shape = self.data_set.input_shape
        self.layout = self.data_set.layout
        self.classes = self.data_set.classes
        self._device = torch.device("cpu")
        self._examples: tuple[Tensor, ...] = ()
        """All examples except the test set."""
        self._test: tuple[Tensor, ...] = ()
        self._drawn: dict[int, TensorSplit] = {}
        self._digest = self._source = ""

    def setup(self, stage: str | None = None) -> None:
        """Read, split and standardize the data once; raise `InputError` if it is missing, corrupt or too small."""
        if self._examples:
            return
        raw = read_raw_data(self.data_set, self.root)
        self._labels, self._published_test = raw.labels, raw.published_test
        splits = self._splits(self.seed)
        if self.batch_size > len(splits.train):
            raise InputError(
                f"data.batch_size must be at most the {len(splits.train)} training examples, got {self.batch_size}"
            )
        scale = scale_of(raw, splits.train)
        self._pool = np.setdiff1d(np.arange(len(raw.labels)), splits.test)
        self._examples, self._test = scale.tensors(raw, self._pool), scale.tensors(raw, splits.test)
        self._digest, self._source = raw.digest, raw.source

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle, with arrays instead of tensors, so that processes can share memory."""
        held = {name: tuple(tensor.cpu().numpy() for tensor in getattr(self, name)) for name in _HELD}
        return {**self.__dict__, **held, "_drawn": {}, "_device": torch.device("cpu")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the pickled state. The arrays may be read-only, since nothing writes to them."""
        self.__dict__.update(state)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.__dict__.update({name: tuple(map(torch.from_numpy, state[name])) for name in _HELD})

    def to(self, device: torch.device | str) -> TensorDataModule:
        """Move the tensors to `device`, for all loaders created from now on."""
        self.setup()
        self._device = torch.device(device)
        self._drawn = {}
        for name in _HELD:
            setattr(self, name, tuple(tensor.to(self._device) for tensor in getattr(self, name)))
        return self

    def for_trial(self, spec: TrialSpec) -> TensorSplit:
        """Return a trial's training and validation set.

        All trials of a search use the same split. A retraining draws its split by its seed: the same in every arm, from
        all examples outside the test set, with the same sizes and standardization.
        """
        return self._split(spec.seed if spec.redraws_split else self.seed)

    def _split(self, seed: int) -> TensorSplit:
        self.setup()
        if seed not in self._drawn:
            drawn = self._splits(seed)
            parts = np.searchsorted(self._pool, drawn.train), np.searchsorted(self._pool, drawn.val)
            labels = self._labels[self._pool]
            self._drawn[seed] = TensorSplit.drawn(self._examples, labels, parts, self.batch_size, seed)
        return self._drawn[seed]

    def _splits(self, seed: int) -> Splits:
        return split(
            self._labels,
            published_test=self._published_test,
            train_size=self.train_size,
            val_fraction=self.val_fraction,
            seed=seed,
        )

    def train_loader(self, seed: int) -> TensorLoader:
        """Return the training set in an order that is a function of `seed` and epoch, in batches of one size."""
        return self._split(self.seed).train_loader(seed)

    def train_dataloader(self) -> TensorLoader:
        """Return `train_loader` with the module's own seed."""
        return self.train_loader(self.seed)

    def train_part_loader(self) -> TensorLoader:
        """Return a fixed, stratified part of the training set, in order, of the size of the validation set at most."""
        return self._split(self.seed).train_part_loader()

    def val_dataloader(self) -> TensorLoader:
        """Return the validation set, in order, in large batches."""
        return self._split(self.seed).val_dataloader()

    def test_dataloader(self) -> TensorLoader:
        """Return the test set, in order, in large batches."""
        self.setup()
        return TensorLoader(self._test, EVAL_BATCH)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of train, val and test."""
        drawn = self._split(self.seed)
        return {"train": len(drawn.train), "val": len(drawn.val), "test": len(self._test[-1])}

    @property
    def digest(self) -> str:
        """sha256 of the data before splitting."""
        self.setup()
        return self._digest

    @property
    def source(self) -> str:
        """Path or description of the data's source."""
        self.setup()
        return self._source

    def in_rows(self) -> TensorDataModule:
        """Return the data for stacked rows: itself, since it is in memory."""
        return self

    def for_trainer(self, seed: int) -> dict[str, Any]:
        """Return the data arguments of `Trainer.fit`."""
        return self._split(self.seed).for_trainer(seed)

    def for_test(self, step: str, loader: Any = None) -> dict[str, Any]:
        """Return the data arguments of `Trainer.test` or `Trainer.validate`: the test set, or `loader`."""
        return {"dataloaders": self.test_dataloader() if loader is None else loader}

    @property
    def description(self) -> str:
        """Description of the data."""
        train, val, test = (f"{self.sizes[part]:,}" for part in ("train", "val", "test"))
        shape = "x".join(str(size) for size in self.input_shape)
        return f"{train} training, {val} validation and {test} test examples of {shape} in {self.classes} classes"
