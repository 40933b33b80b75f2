"""Which examples two loaders share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, Subset, SubsetRandomSampler, TensorDataset

from dropsearch.datasets.shared_examples import common_examples, share_of_equal_examples

WHOLE = TensorDataset(torch.arange(10.0))
TWIN = TensorDataset(torch.arange(10.0))
OTHER = TensorDataset(torch.arange(10.0) + 1)


def sub(*indices: int, of: Any = WHOLE) -> DataLoader[Any]:
    return DataLoader(Subset(of, indices))


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (sub(0, 1, 2), sub(3, 4), 0),
        (sub(0, 1, 2), sub(1, 2, 3), 2),
        (sub(0, 1, 2), sub(1, 2, 3, of=TWIN), 2),
        (sub(0, 1, 2), sub(1, 2, 3, of=OTHER), 0),
        (DataLoader(WHOLE, shuffle=True), sub(3, 4), 2),
        (sub(0, 1, of=Subset(WHOLE, [7, 8, 9])), sub(8, 9), 1),
        (
            DataLoader(WHOLE, sampler=SubsetRandomSampler([0, 1, 2])),
            DataLoader(WHOLE, sampler=SubsetRandomSampler([2, 3])),
            1,
        ),
        (DataLoader(WHOLE, batch_sampler=BatchSampler(SequentialSampler(range(2)), 2, False)), sub(1), 0),
        ([torch.zeros(1)], sub(1), 0),
        (None, sub(1), 0),
    ],
    ids=["apart", "two", "made twice", "other numbers", "whole", "nested", "samplers", "unknown", "a list", "none"],
)
def test_what_is_shared_is_counted_in_the_set_itself(one: Any, other: Any, shared: int):
    assert common_examples(one, other) == common_examples(other, one) == shared


X, Y = torch.arange(12.0).view(6, 2), torch.arange(6)


@pytest.mark.parametrize(
    ("known", "batches", "share"),
    [
        ((X, Y), [(X[:2], Y[:2]), (X[4:], Y[4:])], 1.0),
        ((X, Y), [{"x": X[:2] + 0.5, "y": Y[:2]}, {"x": X[:2], "y": Y[:2]}], 0.5),
        ((X, Y), [(X[:2], Y[1:3])], 0.0),  # the same inputs, other labels
        ((X, Y), [(X[:2].double(), Y[:2])], 0.0),
        ((X, Y), [X[:2]], 0.0),
        ((X.bfloat16(),), [X[:3].bfloat16()], 1.0),
        ((), [(X, Y)], 0.0),
        ((X, Y), [], 0.0),
    ],
)
def test_equal_examples_are_found_in_any_set(known: Any, batches: Any, share: float) -> None:
    assert share_of_equal_examples(known, batches) == share
