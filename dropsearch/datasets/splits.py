"""Seeded, stratified, disjoint splits into training, validation and test set, and the batches of one split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropsearch.core.errors import InputError
from dropsearch.core.seeds import derived_seed
from dropsearch.datasets.loaders import TensorLoader

Indices = NDArray[np.int64]

TEST_SHARE = Fraction(1, 5)
EVAL_BATCH = 2048


Purpose = Literal["test", "val", "train", "train_part"]
"""Purpose of random numbers; each purpose has its own stream."""


@dataclass(frozen=True)
class Splits:
    """Indices of examples of each part, ascending and disjoint."""

    train: Indices
    val: Indices
    test: Indices


def stratified(labels: NDArray[np.int64], size: int, seed: int, purpose: Purpose) -> NDArray[np.bool_]:
    """Return a mask of `size` examples, `[examples]`, in which each class keeps its share within one example."""
    # The stream of RandomState is frozen, so a seed gives the same split with every version of NumPy.
    random = np.random.RandomState(derived_seed(seed, "split", purpose))
    counts = np.bincount(labels)
    # Largest remainder method in integers: quotas are scaled by len(labels).
    quota, remainder = np.divmod(counts * size, max(len(labels), 1))
    ties = random.permutation(len(counts))
    by_remainder = ties[np.argsort(-remainder[ties], kind="stable")]
    quota[by_remainder[: size - quota.sum()]] += 1
    chosen = np.zeros(len(labels), dtype=bool)
    for label, number in enumerate(quota):
        chosen[random.permutation(np.flatnonzero(labels == label))[:number]] = True
    return chosen


def split(
    labels: NDArray[np.int64], *, published_test: int, train_size: int | None, val_fraction: float, seed: int
) -> Splits:
    """Split examples into training, validation and test set.

    The test set is the published one, or a fifth of the examples that does not depend on the seed. The validation set
    is `val_fraction` of the rest; with `train_size` it is smaller, so that the proportion to the training set is kept.
    Sizes are rounded up.

    Args:
        labels: Labels from 0, ``[examples]``.
        published_test: Size of the published test split at the end; 0 if there is none.
        train_size: Number of training examples; None for all remaining ones.
        val_fraction: Share of the validation set, in (0, 1).
        seed: Seed of training and validation set.

    Raises:
        InputError: `train_size` is too large, or no training example would remain.
    """
    is_test = _test(labels, published_test)
    pool, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    val_size = validation_size(len(pool), train_size, val_fraction)
    pool, val = _take(labels, pool, val_size, seed, "val")
    if train_size is not None:
        _, pool = _take(labels, pool, train_size, seed, "train")
    return Splits(train=pool, val=val, test=test)


def validation_size(pool: int, train_size: int | None, val_fraction: float) -> int:
    """Return the size of the validation set among `pool` examples; raise `InputError` if none remains for training."""
    share = Fraction(str(val_fraction))  # exact decimal: 0.2 is 1/5, so rounding up has no floating-point error
    at_most = pool - math.ceil(pool * share)
    if at_most < 1:
        raise InputError(f"data.val_fraction must leave a training example of {pool}, got {val_fraction}")
    if train_size is None:
        return math.ceil(pool * share)
    if train_size > at_most:
        raise InputError(
            f"data.train_size must be at most {at_most}, since data.val_fraction={val_fraction} of {pool} examples "
            f"are for validation, got {train_size}"
        )
    return math.ceil(train_size * share / (1 - share))


def _test(labels: NDArray[np.int64], published: int) -> NDArray[np.bool_]:
    if published:
        return np.arange(len(labels)) >= len(labels) - published
    return stratified(labels, round(len(labels) * TEST_SHARE), 0, "test")


def _take(labels: NDArray[np.int64], pool: Indices, size: int, seed: int, purpose: Purpose) -> tuple[Indices, Indices]:
    chosen = stratified(labels[pool], size, seed, purpose)
    return pool[~chosen], pool[chosen]


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """Batches of one split; a further split costs its indices and no copy of the data.

    Examples are `[examples, ...]` each, on one device; the parts are ascending indices, int64 on the CPU.
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
