"""What the steps and hooks of public packages do: the same vectorized as alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import vmap

from dropsearch._compat.torchmetrics import value_of_batch
from dropsearch.training.vectorized.by_row import RowsDifferError, by_row
from dropsearch.training.vectorized.reads import RowReads
from tests.training.vectorized.laws import Case, assert_law_2
from tests.user_modules import metrics, package_style
from tests.user_modules.data import Digits


@pytest.mark.parametrize(
    "make", [*package_style.EACH, metrics.MeasuredLoss, metrics.Remembering, metrics.SeedingAndDrawing]
)
def test_law_2_holds(make: type, tmp_path: Path) -> None:
    one_site = issubclass(make, package_style.Branching | package_style.Codebook)
    sites = ["drop"] if one_site else ["model", "drop"]
    assert_law_2(Case(make, Digits()), tmp_path, sites)


@pytest.mark.filterwarnings("ignore:You have overridden `on_:UserWarning")  # Lightning's, beside any data module
def test_hooks_that_change_batches_are_parts_of_steps(tmp_path: Path) -> None:
    assert_law_2(Case(package_style.Augmenting, Digits()), tmp_path, ["drop"])


def test_a_packed_recurrent_layer_drops_at_the_rate_of_each_row(tmp_path: Path) -> None:
    assert_law_2(Case(package_style.PackedAndDropping, Digits()), tmp_path, ["model", "drop", "rnn"])


def test_rows_that_branch_apart_are_told() -> None:
    def step(x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 1 else x

    with RowReads():
        assert vmap(step)(torch.tensor([[2.0], [3.0]])).tolist() == [[4.0], [6.0]]
        with pytest.raises(RowsDifferError) as caught:
            vmap(step)(torch.tensor([[2.0], [0.0], [3.0]]))
    assert list(caught.value.groups()) == [[0, 2], [1]]


def test_a_function_without_a_batching_rule_is_called_for_each_row() -> None:
    def count(x: Tensor, factor: float) -> Tensor:
        return factor * x[x > 0].sum()  # its shape depends on the values

    x = torch.tensor([[1.0, -1.0, 2.0], [-1.0, 3.0, -2.0]], requires_grad=True)
    values = vmap(lambda row: by_row(count, (row,), {"factor": 2.0}), in_dims=1)(x.T)
    assert values.tolist() == [6.0, 6.0]
    values.sum().backward()
    assert x.grad.tolist() == [[2.0, 0.0, 2.0], [0.0, 2.0, 0.0]]  # type: ignore[union-attr]


@pytest.mark.parametrize("use", [lambda array: array.sum(), np.sqrt, np.asarray, len, lambda array: array[0] > 1])
def test_rows_that_compute_with_arrays_take_the_step_apart(use: Callable[[Any], Any]) -> None:
    with RowReads():
        with pytest.raises(RowsDifferError) as caught:
            vmap(lambda x: torch.as_tensor(use(x.detach().numpy())))(torch.ones(2, 3))
        assert list(caught.value.groups()) == [[0], [1]]
        assert vmap(lambda x: x * float(np.sum(x.detach().numpy())))(torch.ones(1, 3)).tolist() == [[3.0] * 3]


def test_tensors_that_a_step_fills_are_of_one_row() -> None:
    def fill(x: Tensor) -> Tensor:
        total = torch.zeros(2)
        total += x
        total[0] = x[1]
        return total

    with RowReads():
        assert vmap(fill)(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist() == [[2.0, 2.0], [4.0, 4.0]]


def test_places_of_a_list_are_filled_for_each_row() -> None:
    def fill(x: Tensor) -> Tensor:
        made = x.clone()
        made[..., [0]] = x[..., [1]].roll(1, 1)
        return made

    rows = torch.arange(24.0).reshape(2, 2, 3, 2)
    with RowReads():
        assert torch.equal(vmap(fill)(rows), torch.stack([fill(row) for row in rows]))


def test_value_of_a_metric_leaves_it_as_it_is() -> None:
    metric = package_style.WeightedError()
    logits, targets = torch.randn(2, 4, 10), torch.randint(10, (2, 4))
    expected = [metric(*row) for row in zip(logits, targets, strict=True)]
    total = metric.total.clone()
    found = vmap(lambda x, y: value_of_batch(metric, (x, y), {}, x))(logits, targets)
    assert torch.allclose(found, torch.stack(expected))
    assert metric.total == total
