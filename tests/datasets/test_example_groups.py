from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from dropsearch.datasets.user_loaders import FEWEST, MOST, example_groups


class Stream(IterableDataset):
    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __iter__(self):
        return iter(torch.arange(3 * self.batches).view(-1, 1).float())


def seen(loader):
    return sorted(int(each) for batch in loader for each in (batch[0] if isinstance(batch, list) else batch).flatten())


@pytest.mark.parametrize(
    ("loader", "units"),
    [
        (DataLoader(TensorDataset(torch.arange(103).view(-1, 1)), batch_size=7), 103),
        (DataLoader(TensorDataset(torch.arange(103).view(-1, 1)), batch_size=7, shuffle=True), 103),
        (DataLoader(Stream(40), batch_size=3), 40),
        ([torch.arange(4.0) + 4 * batch for batch in range(9)], 9),
    ],
)
def test_groups_hold_each_example_once(loader, units):
    groups = example_groups(loader)
    assert (len(groups), sum(groups.sizes)) == (min(MOST, units), units)
    everything = seen(loader)
    assert sorted(each for group in range(len(groups)) for each in seen(groups.only(group))) == everything
    assert sorted(seen(groups.only(2)) + seen(groups.without(2))) == everything
    assert max(groups.sizes) - min(groups.sizes) <= 1


@pytest.mark.parametrize("loader", [[torch.zeros(1)] * (FEWEST - 1), DataLoader(TensorDataset(torch.zeros(3, 1)))])
def test_few_examples_have_no_groups(loader):
    assert example_groups(loader) is None
