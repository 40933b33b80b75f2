"""Who is in the training, the validation and the test set: seeded, stratified, disjoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dropsearch.core.errors import InputError
from dropsearch.core.seeds import derived_seed

Indices = NDArray[np.int64]

TEST_SHARE = Fraction(1, 5)
"""Of a set that has no published test split."""


Purpose = Literal["test", "val", "train", "train_part"]
"""What random numbers are drawn for; each purpose has its own stream of a seed."""


@dataclass(frozen=True)
class Splits:
    """Indices of examples, in rising order, no two parts sharing one."""

    train: Indices
    val: Indices
    test: Indices


def stratified(labels: NDArray[np.int64], size: int, seed: int, purpose: Purpose) -> NDArray[np.bool_]:
    """Choose `size` of the examples so that each class keeps its share, within one example.

    Args:
        labels: ``[examples]``, from 0.
        size: At most the number of examples.

    Returns:
        ``[examples]``, True for those chosen; a pure function of the arguments.
    """
    random = _stream(seed, purpose)
    counts = np.bincount(labels)
    # Largest remainders, counted in whole numbers: len(labels) times what each class should give.
    quota, remainder = np.divmod(counts * size, max(len(labels), 1))
    ties = random.permutation(len(counts))
    by_remainder = ties[np.argsort(-remainder[ties], kind="stable")]
    quota[by_remainder[: size - quota.sum()]] += 1
    chosen = np.zeros(len(labels), dtype=bool)
    for label, number in enumerate(quota):
        chosen[random.permutation(np.flatnonzero(labels == label))[:number]] = True
    return chosen


def split(
    labels: NDArray[np.int64],
    *,
    published_test: int,
    train_size: int | None,
    val_fraction: float,
    seed: int,
) -> Splits:
    """Split a pool of examples.

    The test set is the published one, or a fixed fifth that no seed changes. Of what remains, validation is
    `val_fraction`, or as much as gives `train_size` training examples that proportion, and is set apart
    first; then comes training. Sizes that are not whole are rounded up.

    Args:
        labels: ``[examples]``, from 0.
        published_test: How many examples at the end are the published test split, 0 where there is none.
        train_size: The number of training examples; None takes all that remain.
        val_fraction: In (0, 1).
        seed: What decides all but the test set.

    Raises:
        InputError: `train_size` is more than remains, or nothing would remain for training.
    """
    is_test = _test(labels, published_test)
    pool, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    val_size = validation_size(len(pool), train_size, val_fraction)
    pool, val = _take(labels, pool, val_size, seed, "val")
    if train_size is not None:
        _, pool = _take(labels, pool, train_size, seed, "train")
    return Splits(train=pool, val=val, test=test)


def validation_size(pool: int, train_size: int | None, val_fraction: float) -> int:
    """Return how many of `pool` examples are validation.

    Raises:
        InputError: `train_size` is more than remains, or nothing would remain for training.
    """
    share = Fraction(str(val_fraction))  # as it was written: 0.2 is a fifth, so that nothing rounds up by accident
    at_most = pool - math.ceil(pool * share)
    if at_most < 1:
        raise InputError(f"data.val_fraction must leave a training example of {pool}, got {val_fraction}")
    if train_size is None:
        return math.ceil(pool * share)
    if train_size > at_most:
        raise InputError(
            f"data.train_size must be at most {at_most}, which data.val_fraction={val_fraction} leaves of "
            f"{pool} examples, got {train_size}"
        )
    return math.ceil(train_size * share / (1 - share))


def _test(labels: NDArray[np.int64], published: int) -> NDArray[np.bool_]:
    if published:
        return np.arange(len(labels)) >= len(labels) - published
    return stratified(labels, round(len(labels) * TEST_SHARE), 0, "test")


def _take(labels: NDArray[np.int64], pool: Indices, size: int, seed: int, purpose: Purpose) -> tuple[Indices, Indices]:
    """Return what is left of `pool` and what was taken."""
    chosen = stratified(labels[pool], size, seed, purpose)
    return pool[~chosen], pool[chosen]


def _stream(seed: int, purpose: Purpose) -> np.random.RandomState:
    # RandomState, for its stream is frozen: the same seed gives the same split with every version of NumPy.
    return np.random.RandomState(derived_seed(seed, "split", purpose))
