"""Which examples two loaders share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, Subset, SubsetRandomSampler, TensorDataset

from dropsearch.datasets.user_parts import common_examples

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
