from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dropsearch.analysis.measures.coadaptation import (
    EXAMPLES,
    SERIES,
    SHARES,
    VALUES,
    layer_measures,
    mean_correlation,
    measure,
    participation_ratio,
    relative_area,
)
from dropsearch.models import CNN, MLP, RNN, Transformer
from tests.analysis.measures.models import numbers, trained

seeds = st.integers(0, 2**31)


def test_independent_units_have_almost_no_correlation_and_fill_their_space():
    values = numbers(20_000, 10).double()
    assert mean_correlation(values) < 0.02
    assert participation_ratio(values) > 0.98


def test_a_unit_that_is_there_twice_is_seen():
    one, other = numbers(20_000, 1), numbers(20_000, 1, seed=1)
    values = torch.cat([one, one, other], dim=1).double()
    assert mean_correlation(values) == pytest.approx(1 / 3, abs=0.02)
    # eigenvalues 2, 1, 0
    assert participation_ratio(values) == pytest.approx(9 / 5 / 3, abs=0.02)


@settings(max_examples=25)
@given(seeds, st.integers(2, 8))
def test_multiples_of_one_unit_are_one_dimension(seed: int, units: int):
    values = numbers(50, 1, seed=seed).double() * torch.arange(1, units + 1).double()
    assert mean_correlation(values) == pytest.approx(1)
    assert participation_ratio(values) == pytest.approx(1 / units)


@settings(max_examples=25)
@given(seeds, st.integers(2, 12), st.integers(3, 40))
def test_it_is_numpys_correlation_and_the_eigenvalues_of_numpys_covariance(seed: int, units: int, rows: int):
    values = numbers(rows, units, seed=seed).double()
    found = np.abs(np.corrcoef(values.numpy().T))
    pairs = found[np.triu_indices(units, 1)]
    assert mean_correlation(values) == pytest.approx(pairs.mean())
    eigenvalues = np.linalg.eigvalsh(np.cov(values.numpy().T))
    ratio = eigenvalues.sum() ** 2 / (eigenvalues**2).sum() / units
    assert participation_ratio(values) == pytest.approx(ratio)


@settings(max_examples=25)
@given(seeds, st.floats(0.1, 100), st.floats(-5, 5))
def test_units_may_be_shifted_and_all_scaled(seed: int, factor: float, shift: float):
    values = numbers(30, 4, seed=seed).double()
    for of in (mean_correlation, participation_ratio):
        assert of(values * factor + shift) == pytest.approx(of(values))


def test_dead_units_are_counted_separately():
    live = numbers(40, 3).abs()
    found, alone = layer_measures(torch.cat([live, torch.full((40, 1), 0.25)], dim=1)), layer_measures(live)
    assert found.pop("dead_share") == 0.25
    assert alone.pop("dead_share") == 0
    assert found == alone


def test_one_unit_has_no_correlation_and_one_dimension():
    found = layer_measures(torch.tensor([[0.0], [1.0], [2.0]]))
    assert math.isnan(found["correlation"])
    assert found["participation"] == pytest.approx(1)


def test_a_layer_that_is_dead_has_nothing_else():
    found = layer_measures(torch.zeros(5, 3))
    assert found.pop("dead_share") == 1
    assert all(map(math.isnan, found.values()))


def test_sparsity_is_the_mean_size_and_the_share_above_a_tenth_of_the_largest():
    found = layer_measures(torch.tensor([[0.0, 1.0], [2.0, 0.1], [0.0, -0.3]]))
    assert found["mean_activation"] == pytest.approx(3.4 / 6)
    assert found["active_share"] == pytest.approx(3 / 6)


@pytest.mark.parametrize(
    ("accuracies", "area"), [([0.8, 0.8, 0.8], 1.0), ([0.8, 0.4, 0.0], 0.5), ([0.8, 0.0, 0.0], 0.25)]
)
def test_the_area_is_the_mean_of_the_curve_relative_to_its_start(accuracies: list[float], area: float):
    assert relative_area((0.0, 0.45, 0.9), accuracies) == pytest.approx(area)


def test_a_network_that_was_never_right_has_no_area():
    assert math.isnan(relative_area((0.0, 0.9), [0.0, 0.1]))


def chain(units: int = 20) -> nn.Sequential:
    """Two classes by the sign of one number; in the hidden layer stand that number and its negative, `units` times."""
    net = nn.Sequential(nn.Linear(1, units), nn.ReLU(), nn.Linear(units, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-1.0]]).repeat(units // 2, 1))
        net[0].bias.zero_()
        net[2].weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(1, units // 2))
        net[2].bias.zero_()
    return net


def test_a_network_of_copies_loses_little_when_units_are_knocked_out():
    x = torch.linspace(-1, 1, 200).unsqueeze(1)
    shares, curve = measure(trained(chain(), x)).series["knockout"]
    assert tuple(shares) == SHARES
    assert curve[0] == 1
    assert min(curve[:6]) > 0.9


def test_knocked_out_units_give_their_mean():
    # One of two units of opposite sign goes, and gives its mean, 0.25; by hand for each of the two.
    x = torch.linspace(-1, 1, 201).unsqueeze(1)
    net = chain(2)
    with torch.no_grad():
        hidden = net[:2](x)
        scores = []
        for gone in range(2):
            changed = hidden.clone()
            changed[:, gone] = hidden[:, gone].mean()
            scores.append((net[2](changed).argmax(-1) == net(x).argmax(-1)).double().mean().item())
    curve = measure(trained(net, x)).series["knockout"][1]
    assert curve[:3] == [1, 1, 1], "less than half a unit is none"
    assert min(scores) < 1
    assert all(min(scores) <= accuracy <= max(scores) for accuracy in curve[3:8])


NETS = [
    (MLP((1, 8, 8), 3, hidden=[16, 8]), (numbers(30, 1, 8, 8),)),
    (MLP((1, 8, 8), 3, hidden=[16], norm="batch", activation="tanh"), (numbers(30, 1, 8, 8),)),
    (CNN((1, 8, 8), 3, channels=[4, 6], head=[10]), (numbers(30, 1, 8, 8),)),
    (RNN((5, 4), 3, layout="sequence", hidden_size=6), (numbers(30, 5, 4), torch.arange(30) % 6)),
    (Transformer((5, 4), 3, layout="sequence", width=8, heads=2), (numbers(30, 5, 4), torch.arange(30) % 6)),
]


@pytest.mark.parametrize(("net", "inputs"), NETS, ids=lambda value: getattr(value, "name", ""))
def test_every_network_is_measured_and_left_as_it_was(net: nn.Module, inputs: tuple[Tensor, ...]):
    subject = trained(net, *inputs)
    state, before = torch.get_rng_state(), {name: part.clone() for name, part in net.state_dict().items()}
    found = measure(subject)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(part, before[name]) for name, part in net.state_dict().items())
    assert not net.training
    assert not any(part._forward_hooks for part in net.modules())
    assert (set(found.values), set(found.series)) == (set(VALUES), set(SERIES))
    assert all(map(math.isfinite, found.values.values()))
    assert repr(found) == repr(measure(subject)), "and gives the same again"


def test_with_all_units_of_a_kind_gone_a_network_knows_less():
    curve = measure(trained(chain(4), torch.linspace(-1, 1, 200).unsqueeze(1))).series["knockout"][1]
    assert curve[9] < 0.9 < curve[0] == 1


def test_of_many_examples_some_are_looked_at():
    seen: list[int] = []
    net = chain()
    subject = trained(net, torch.linspace(-1, 1, EXAMPLES + 9).unsqueeze(1))
    net.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    measure(subject)
    assert set(seen) == {EXAMPLES}
