from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from dropsearch.analysis.measures.protocol import Examples
from dropsearch.analysis.measures.variance_shift import SERIES, VALUES, measure, recalibration, shifts
from tests.analysis.measures.winners import CLASSES, KINDS, examples, of_module, state, winner


def normal(size: int, *shape: int, seed: int = 0) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    return Examples((torch.randn(size, *shape, generator=generator),), torch.zeros(size, dtype=torch.long))


def closed_form(mean: float, variance: float, rate: float) -> float:
    """Li et al. 2019, with retention 1 - rate."""
    return variance / ((mean**2 + variance) / (1 - rate) - mean**2)


@pytest.mark.parametrize(("rate", "expected"), [(0.1, 0.860), (0.2, 0.732), (0.3, 0.614), (0.5, 0.405)])
@pytest.mark.parametrize("dims", [(12,), (6, 3, 3)])
def test_behind_dropout_on_rectified_normals_the_shift_is_the_closed_form(
    rate: float, expected: float, dims: tuple[int, ...]
) -> None:
    mean, variance = 1 / math.sqrt(2 * math.pi), 0.5 - 1 / (2 * math.pi)
    norm = nn.BatchNorm1d(12) if len(dims) == 1 else nn.BatchNorm2d(6)
    module = nn.Sequential(nn.ReLU(), nn.Dropout(), norm)
    seen = normal(2000, *dims)
    (found,) = shifts(of_module(module, {"1": rate}, seen)).values()
    assert closed_form(mean, variance, rate) == pytest.approx(expected, abs=5e-4)
    assert found == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_with_a_mean_of_zero_the_shift_is_the_share_that_is_kept(rate: float) -> None:
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(12))
    (found,) = shifts(of_module(module, {"0": rate}, normal(2000, 12))).values()
    assert found == pytest.approx(1 - rate, abs=0.012)


def test_in_front_of_all_dropout_there_is_no_shift_and_layers_are_in_the_order_of_the_pass() -> None:
    module = nn.Sequential(nn.BatchNorm1d(12), nn.Dropout(), nn.BatchNorm1d(12))
    trained = of_module(module, {"1": 0.4}, normal(500, 12))
    found = shifts(trained)
    assert list(found) == ["0", "2"]
    assert found["0"] == pytest.approx(1)
    x, y = measure(trained).series["shift"]
    assert (list(x), list(y)) == ([1, 2], list(found.values()))


class PaddedNorm(nn.BatchNorm1d):
    """A BatchNorm over steps that is told which are real, as that of our recurrent networks."""

    def forward(self, input: Tensor, real: Tensor) -> Tensor:
        return super().forward(input.flatten(0, 1)).view_as(input)


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm = nn.Dropout(), PaddedNorm(3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.norm(self.drop(x), torch.arange(x.shape[1]) < lengths[:, None]).mean(1)


def test_padding_has_no_say_in_the_variance() -> None:
    seen = examples("sequence", 800)
    x, lengths = seen.inputs
    padded = x.masked_fill((torch.arange(10) >= lengths[:, None])[..., None], 1e3)
    found = shifts(of_module(Steps(), {"drop": 0.3}, Examples((padded, lengths), seen.targets)))
    assert found["norm"] == pytest.approx(0.7, abs=0.02)


def test_units_that_are_always_the_same_are_left_out() -> None:
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(4))
    seen = normal(1000, 4)
    seen.inputs[0][:, :2] = 0
    (found,) = shifts(of_module(module, {"0": 0.3}, seen)).values()
    assert found == pytest.approx(0.7, abs=0.02)
    seen.inputs[0].zero_()
    assert math.isnan(measure(of_module(module, {"0": 0.3}, seen)).values["shift_min"])


@pytest.mark.parametrize(("name", "layout"), KINDS)
def test_every_network_with_both_has_all_numbers(name: str, layout: str) -> None:
    found = measure(winner(name, layout, arm="both"))
    assert set(found.values) == set(VALUES)
    assert set(found.series) == set(SERIES)
    assert all(map(math.isfinite, found.values.values()))
    assert 0 < found.values["shift_min"] <= found.values["shift_mean"]


def test_with_all_rates_zero_there_is_no_shift() -> None:
    found = measure(winner("cnn", arm="both", rate=0.0))
    assert found.values["shift_min"] == pytest.approx(1)
    assert found.values["shift_mean"] == pytest.approx(1)


@pytest.mark.parametrize("arm", ["none", "dropout"])
def test_without_batchnorm_there_are_no_numbers(arm: str) -> None:
    found = measure(winner(arm=arm))
    assert set(found.values) == set(VALUES)
    assert all(map(math.isnan, found.values.values()))
    assert not found.series


def test_batchnorm_without_dropout_has_accuracies_and_no_shift() -> None:
    trained = winner("cnn", arm="batchnorm")
    found = measure(trained)
    assert {name for name, value in found.values.items() if math.isnan(value)} == {"shift_min", "shift_mean"}
    assert (found.values["accuracy_as_trained"], found.values["accuracy_recalibrated"]) == recalibration(trained)
    gain = found.values["accuracy_recalibrated"] - found.values["accuracy_as_trained"]
    assert found.values["recalibration_gain"] == gain
    assert not found.series


@pytest.mark.parametrize(("name", "layout"), KINDS)
def test_the_network_is_left_as_it_was(name: str, layout: str) -> None:
    trained = winner(name, layout, arm="both")
    before = state(trained)
    measure(trained)
    assert state(trained) == before


def test_a_network_whose_statistics_are_of_other_data_gains_by_measuring_them_again() -> None:
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(CLASSES, affine=False))
    x = normal(400, CLASSES).inputs[0] + 3 * torch.arange(CLASSES)
    targets = (x - 3 * torch.arange(CLASSES)).argmax(-1)
    trained = of_module(module, {"0": 0.2}, Examples((x,), targets))
    before, after = recalibration(trained)
    assert after - before > 0.5


def test_statistics_that_are_those_of_the_data_gain_nothing() -> None:
    trained = winner("cnn", arm="both")
    copied = copy.deepcopy(trained.module).train()
    for part in copied.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = 1.0
    copied(*trained.train.inputs)
    twin = of_module(copied, trained.spec.rates, trained.held_out, arm="both")
    before, after = recalibration(twin)
    assert before == after


def test_statistics_are_put_back_where_the_pass_fails() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fails = nn.BatchNorm1d(3), False

        def forward(self, x: Tensor) -> Tensor:
            if self.norm.training:
                raise RuntimeError("no training here")
            return self.norm(x)

    trained = of_module(Failing(), {}, normal(10, 3), arm="both")
    before = state(trained)
    with pytest.raises(RuntimeError, match="no training here"):
        recalibration(trained)
    assert state(trained) == before
