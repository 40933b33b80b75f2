from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropsearch.analysis.measures.passes import averaged, has_dropout, logits_of
from dropsearch.analysis.measures.protocol import Examples
from tests.analysis.measures.winners import KINDS, examples, of_module, state, winner


@pytest.mark.parametrize("arm", ["dropout", "both"])
@pytest.mark.parametrize(("name", "layout"), KINDS)
def test_with_all_rates_zero_the_samples_are_the_network(name: str, layout: str, arm: str) -> None:
    trained = winner(name, layout, arm=arm, rate=0.0)
    expected = logits_of(trained, trained.held_out.inputs).double().log_softmax(-1)
    for mean in averaged(trained, trained.held_out.inputs, (1, 3, 7)):
        assert torch.allclose(mean, expected, atol=1e-6)


@pytest.mark.parametrize("arm", ["dropout", "both"])
@pytest.mark.parametrize(("name", "layout"), KINDS)
def test_the_network_and_torchs_generator_are_left_as_they_were(name: str, layout: str, arm: str) -> None:
    trained = winner(name, layout, arm=arm)
    before = state(trained)
    averaged(trained, trained.held_out.inputs, (4,))
    assert state(trained) == before


@pytest.mark.parametrize(("name", "layout"), KINDS)
def test_fewer_passes_are_the_first_of_more(name: str, layout: str) -> None:
    trained = winner(name, layout)
    few = averaged(trained, trained.held_out.inputs, (1, 3))
    many = averaged(trained, trained.held_out.inputs, (1, 3, 60))
    assert torch.allclose(few, many[:2], atol=1e-6)
    assert not torch.allclose(many[1], many[2], atol=1e-3)


def test_the_same_seed_draws_the_same_masks_and_another_one_others() -> None:
    trained = winner()
    other = dataclasses.replace(trained, spec=dataclasses.replace(trained.spec, seed=8))
    one, again, apart = (averaged(each, trained.held_out.inputs, (5,)) for each in (trained, trained, other))
    assert torch.equal(one, again)
    assert not torch.allclose(one, apart, atol=1e-3)


class Three(nn.Module):
    """Three inputs that are dropped before a linear layer: eight masks, which can be counted out."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.9)
        self.linear = nn.Linear(3, 2, bias=False)
        self.linear.weight.data = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 1.5]])

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(x))


def test_many_passes_average_to_the_mean_over_all_masks() -> None:
    rate, x = 0.4, torch.tensor([[1.0, -1.0, 2.0], [0.5, 2.0, -1.0]])
    trained = of_module(Three(), {"drop": rate}, Examples((x,), torch.tensor([0, 1])))
    expected = torch.zeros(2, 2)
    for kept in itertools.product([0.0, 1.0], repeat=3):
        mask = torch.tensor(kept)
        chance = math.prod(1 - rate if each else rate for each in kept)
        expected += chance * trained.module.linear(x * mask / (1 - rate)).softmax(-1)  # type: ignore[operator]
    (mean,) = averaged(trained, (x,), (4_000,))
    assert torch.allclose(mean.exp(), expected.detach().double(), atol=0.03)


def test_the_mean_is_that_of_the_probabilities_of_single_passes() -> None:
    trained = winner()
    inputs = trained.held_out.inputs
    means = averaged(trained, inputs, tuple(range(1, 9))).exp()
    totals = means * torch.arange(1, 9)[:, None, None]
    singles = torch.cat([totals[:1], totals.diff(dim=0)])
    assert torch.allclose(singles.sum(-1), torch.ones(8, len(trained.held_out)).double())
    assert float(singles.min()) >= 0
    assert float(singles.std(0).max()) > 1e-3


def test_tiny_probabilities_are_distinguished() -> None:
    linear = nn.Linear(1, 2, bias=False)
    linear.weight.data = torch.tensor([[0.0], [-2000.0]])
    module = nn.Sequential(nn.Dropout(0.5), linear)
    seen = Examples((torch.ones(1, 1),), torch.tensor([1]))
    (mean,) = averaged(of_module(module, {"0": 0.0}, seen), seen.inputs, (3,))
    assert float(mean[0, 1]) == pytest.approx(-2000)


class SharedMask(nn.Module):
    """One mask for all examples of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x * F.dropout(torch.ones(1, x.shape[1]), 0.5, self.training)


def test_masks_that_a_batch_shares_are_drawn_for_every_pass() -> None:
    seen = Examples((torch.ones(4, 7),), torch.zeros(4, dtype=torch.long))
    means = averaged(of_module(SharedMask(), {"model": 0.5}, seen), seen.inputs, (1, 40))
    # With one mask for many passes the mean of 40 would be far from that of masks of their own.
    assert torch.allclose(means[1].exp(), torch.full((4, 7), 1 / 7).double(), atol=0.05)
    assert torch.equal(means[1][0], means[1][3])


@pytest.mark.parametrize(("arm", "expected"), [("dropout", True), ("both", True), ("none", False)])
def test_the_arm_says_whether_there_is_dropout(arm: str, expected: bool) -> None:
    assert has_dropout(winner(arm=arm, rate=0.0)) is expected


def test_a_foreign_network_whose_rates_were_switched_off_has_no_dropout() -> None:
    assert not has_dropout(of_module(Three(), {"drop": 0.0}, examples(), arm="none"))
