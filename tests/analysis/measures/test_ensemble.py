from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss

from dropsearch.analysis.measures.ensemble import SERIES, VALUES, deep_ensemble, measure
from dropsearch.analysis.measures.passes import averaged, logits_of
from dropsearch.analysis.measures.protocol import Settings
from tests.analysis.measures.winners import CLASSES, KINDS, state, winner

OF_SAMPLES = {name for name in VALUES if name.startswith("mc_")}


@pytest.mark.parametrize(("name", "layout"), KINDS)
def test_every_number_and_curve_of_a_network_with_dropout_is_there(name: str, layout: str) -> None:
    found = measure(winner(name, layout))
    assert set(found.values) == set(VALUES)
    assert all(map(math.isfinite, found.values.values()))
    assert {f"{score}_by_samples" for score in ("nll", "brier", "accuracy", "ece")} == set(found.series) < set(SERIES)
    assert found.values["mc_nll"] == found.series["nll_by_samples"][1][-1]


def test_the_loss_of_the_network_is_that_of_its_probabilities() -> None:
    trained = winner()
    probabilities = logits_of(trained, trained.held_out.inputs).double().softmax(-1)
    expected = log_loss(trained.held_out.targets, probabilities, labels=range(CLASSES))
    assert measure(trained).values["nll"] == pytest.approx(expected)


def test_with_all_rates_zero_nothing_is_gained() -> None:
    values = measure(winner(rate=0.0)).values
    assert values["mc_nll_gain"] == pytest.approx(0, abs=1e-6)
    assert values["mc_minus_scaled"] == pytest.approx(values["nll"] - values["scaled_nll"], abs=1e-6)


def test_the_average_is_scaled_by_the_temperature_that_suits_it_on_validation() -> None:
    trained = winner()
    validation, held_out = (
        averaged(trained, each.inputs, trained.settings.monte_carlo)[-1]
        for each in (trained.validation, trained.held_out)
    )
    losses = {}
    for temperature in torch.logspace(-1.3, 1.3, 2001, dtype=torch.float64):
        chosen = float(F.cross_entropy(validation / temperature, trained.validation.targets))
        losses[chosen] = float(F.cross_entropy(held_out / temperature, trained.held_out.targets))
    values = measure(trained).values
    assert values["mc_scaled_nll"] == pytest.approx(losses[min(losses)], abs=1e-4)
    assert abs(values["mc_scaled_nll"] - values["mc_nll"]) > 1e-3


def test_a_temperature_fitted_to_the_examples_themselves_can_only_lower_the_loss() -> None:
    values = measure(winner()).values
    assert values["scaled_nll"] <= values["nll"]
    assert values["scaled_accuracy"] == values["accuracy"]


@pytest.mark.parametrize("arm", ["none", "batchnorm"])
def test_a_network_without_dropout_has_its_own_scores_and_no_samples(arm: str) -> None:
    found = measure(winner(arm=arm))
    assert {name for name, value in found.values.items() if math.isnan(value)} == OF_SAMPLES
    assert not found.series


def test_without_passes_there_are_no_samples() -> None:
    found = measure(dataclasses.replace(winner(), settings=Settings(monte_carlo=())))
    assert {name for name, value in found.values.items() if math.isnan(value)} == OF_SAMPLES


def test_the_network_is_left_as_it_was() -> None:
    trained = winner("cnn", arm="both")
    before = state(trained)
    measure(trained)
    assert state(trained) == before


def logits(models: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(models, 30, 4, generator=generator), torch.randint(4, (30,), generator=generator)


def test_an_ensemble_averages_the_probabilities_of_its_members() -> None:
    each, targets = logits(6)
    found = deep_ensemble(each, targets, members=(1, 2, 5))["nll_by_members"]
    assert found.x == (1, 2, 5, 6)
    probabilities = each.double().softmax(-1)
    for first, row in enumerate(found.values):
        for count, value in zip((1, 2, 5, 6), row, strict=True):
            chosen = [(first + step) % 6 for step in range(count)]
            assert value == pytest.approx(log_loss(targets, probabilities[chosen].mean(0), labels=range(4)))


def test_the_order_of_members_does_not_change_the_ensemble() -> None:
    for series in deep_ensemble(*logits(4)).values():
        assert series.x == (1, 2, 4)
        assert [row[-1] for row in series.values] == pytest.approx([series.values[0][-1]] * 4)


def test_the_mean_loss_falls_with_members() -> None:
    found = deep_ensemble(*logits(10))["nll_by_members"]
    means = torch.tensor(found.values).mean(0)
    assert bool((means.diff() < 0).all())


def test_one_network_is_an_ensemble_of_one() -> None:
    found = deep_ensemble(*logits(1))
    assert set(found) < set(SERIES)
    assert found["ece_by_members"].x == (1,)
