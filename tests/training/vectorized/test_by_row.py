"""Functions that are called for each row, and what differs between rows."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from dropsearch._compat.row_values import quiet_loops
from dropsearch.training.vectorized.by_row import RowsDifferError, by_row
from dropsearch.training.vectorized.carried import CarriedAttributes
from dropsearch.training.vectorized.step_traits import StepTraits

VALUES = torch.tensor([1.0, 2.0, 1.0])


def called(function: Any) -> Any:
    """Return what a function returns for three rows."""
    found: list[Any] = []

    def run(value: Tensor) -> Tensor:
        found.append(by_row(function, (value,), {}))
        return value

    vmap(run)(VALUES)
    return found[0]


@pytest.mark.parametrize("function", [float, lambda value: torch.zeros(int(value)), lambda value: {"name": str(value)}])
def test_rows_with_other_numbers_or_shapes_are_told_apart(function: Any) -> None:
    with pytest.raises(RowsDifferError) as raised:
        called(function)
    assert [*raised.value.groups()] == [[0, 2], [1]]


def test_rows_with_other_arrays_are_told_apart() -> None:
    with pytest.raises(RowsDifferError) as raised:
        called(
            lambda value: np.arange(2000) * (1 + (np.arange(2000) == 1000) * int(value))
        )  # its text has the ends alone
    assert [*raised.value.groups()] == [[0, 2], [1]]


@pytest.mark.parametrize("value", [math.nan, 3, "text", None])
def test_what_all_rows_return_is_returned(value: Any) -> None:
    assert repr(called(lambda _: value)) == repr(value)


class Held(nn.Module):
    """Reads a number and a tensor that differ between rows."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.layer, self.number = nn.Linear(1, 1), number

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.number


def test_numbers_of_rows_are_where_the_weights_are() -> None:
    carried = CarriedAttributes(Held(0.0).to("meta"), StepTraits(carried={(("",), "number")}))
    (found,) = carried.of([Held(1.0), Held(2.0)]).values()
    assert (found.device.type, found.shape, found.dtype) == ("meta", (2,), torch.float64)


def test_loops_stay_quiet_until_the_outermost_context_ends() -> None:
    with quiet_loops():
        with quiet_loops():
            pass
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            vmap(torch.histc)(torch.ones(3, 4))
    assert [str(each.message) for each in found] == []
