"""A training and a validation set as indices of examples that all splits share in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dropsearch.datasets.loaders import TensorLoader
from dropsearch.datasets.splits import Indices, stratified

EVAL_BATCH = 2048


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """Batches of one split; a further split costs its indices and no copy of the data.

    Args:
        examples: Inputs and target of all training and validation examples, `[examples, ...]` each, on one device.
        train: Indices of the training examples, ascending, int64 on the CPU; `val` and `train_part` likewise.
        batch_size: Batch size in training.
    """

    examples: tuple[Tensor, ...]
    train: Tensor
    val: Tensor
    train_part: Tensor
    """A fixed, stratified part of the training set, of the size of the validation set at most."""
    batch_size: int

    @classmethod
    def drawn(
        cls, examples: tuple[Tensor, ...], labels: Indices, parts: tuple[Indices, Indices], batch_size: int, seed: int
    ) -> TensorSplit:
        """Return a split of labelled examples, with a part of its training set that the seed draws."""
        train, val = parts
        chosen = stratified(labels[train], min(len(val), len(train)), seed, "train_part")
        return cls(examples, _tensor(train), _tensor(val), _tensor(train[chosen]), batch_size)

    def train_loader(self, seed: int) -> TensorLoader:
        """Return the training set in an order that is a function of `seed` and epoch.

        Incomplete batches are dropped, so all training batches have the same shape.
        """
        return TensorLoader(self.examples, self.batch_size, seed=seed, drop_last=True, subset=self.train)

    def train_part_loader(self) -> TensorLoader:
        """Return the part of the training set, in order, for comparing train and validation loss."""
        return TensorLoader(self.examples, EVAL_BATCH, subset=self.train_part)

    def val_dataloader(self) -> TensorLoader:
        """Return the validation set, in order, in large batches."""
        return TensorLoader(self.examples, EVAL_BATCH, subset=self.val)

    def for_trainer(self, seed: int) -> dict[str, Any]:
        """Return the data arguments of `Trainer.fit`."""
        return {"train_dataloaders": self.train_loader(seed), "val_dataloaders": self.val_dataloader()}


def _tensor(indices: Sequence[int] | Indices) -> Tensor:
    return torch.from_numpy(np.asarray(indices, np.int64))
