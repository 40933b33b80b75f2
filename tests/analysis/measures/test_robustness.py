from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dropsearch.analysis.measures.protocol import Examples, Settings
from dropsearch.analysis.measures.robustness import SERIES, VALUES, mean_corruption_error, measure
from tests.analysis.measures.winners import KINDS, examples, of_module, state, winner


@pytest.mark.parametrize(("name", "layout"), KINDS)
def test_each_curve_begins_with_clean_examples_and_has_all_severities(name: str, layout: str) -> None:
    trained = winner(name, layout)
    trained = dataclasses.replace(trained, settings=Settings(severities=3))
    found = measure(trained)
    assert set(found.series) == (set(SERIES) if layout == "image" else {"noise", "salt_and_pepper"})
    assert {tuple(x) for x, _ in found.series.values()} == {(0, 1, 2, 3)}
    assert len({curve[0] for _, curve in found.series.values()}) == 1


def test_area_and_error_are_means_over_all_corruptions_and_severities() -> None:
    trained = winner()
    found = measure(trained)
    cells = [value for _, curve in found.series.values() for value in list(curve)[1:]]
    clean = next(iter(found.series.values()))[1][0]
    assert len(cells) == 25
    assert set(found.values) == set(VALUES)
    assert found.values["robustness_area"] == pytest.approx(sum(cells) / 25 / clean)
    assert found.values["corruption_error"] == pytest.approx(1 - sum(cells) / 25)


def test_the_area_under_noise_covers_the_two_noises_only() -> None:
    found = measure(winner())
    cells = [value for name in ("noise", "salt_and_pepper") for value in list(found.series[name][1])[1:]]
    clean = found.series["noise"][1][0]
    assert found.values["noise_area"] == pytest.approx(sum(cells) / 10 / clean)
    assert found.values["noise_area"] != found.values["robustness_area"]


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)


def test_a_network_that_looks_at_nothing_loses_nothing() -> None:
    targets = torch.tensor([0] * 30 + [1] * 10)
    found = measure(of_module(Constant(), {}, Examples(examples().inputs, targets), is_image=True))
    assert found.values == {"noise_area": 1.0, "robustness_area": 1.0, "corruption_error": pytest.approx(0.25)}


def test_without_one_right_answer_there_is_nothing_to_keep() -> None:
    found = measure(of_module(Constant(), {}, Examples(examples().inputs, torch.ones(40).long()), is_image=True))
    assert math.isnan(found.values["robustness_area"])
    assert found.values["corruption_error"] == 1


def test_words_cannot_be_corrupted() -> None:
    module = nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(24, 3))
    seen = Examples((torch.randint(50, (10, 6)),), torch.zeros(10, dtype=torch.long))
    found = measure(of_module(module, {}, seen))
    assert all(map(math.isnan, found.values.values()))
    assert not found.series


def test_the_network_is_left_as_it_was() -> None:
    trained = winner("cnn", arm="both")
    before = state(trained)
    measure(trained)
    assert state(trained) == before


curves = st.lists(st.floats(0, 0.95), min_size=6, max_size=6)
of_two = st.fixed_dictionaries({"noise": curves, "blur": curves})


@given(of_two)
def test_a_network_has_the_error_of_one_relative_to_itself(of: dict[str, list[float]]) -> None:
    assert mean_corruption_error(of, of) == pytest.approx(1)


@given(of_two, of_two)
def test_the_mean_corruption_error_is_the_mean_of_the_ratios_of_summed_errors(
    of: dict[str, list[float]], reference: dict[str, list[float]]
) -> None:
    ratios = [sum(1 - a for a in of[name][1:]) / sum(1 - a for a in reference[name][1:]) for name in of]
    assert mean_corruption_error(of, reference) == pytest.approx(sum(ratios) / 2)


def test_a_reference_without_errors_gives_no_ratio() -> None:
    assert math.isnan(mean_corruption_error({"noise": [1.0, 0.9]}, {"noise": [1.0, 1.0]}))


@pytest.mark.parametrize(("of", "reference"), [({}, {}), ({"noise": [1.0]}, {"blur": [1.0]})])
def test_corruptions_that_differ_are_not_compared(
    of: dict[str, list[float]], reference: dict[str, list[float]]
) -> None:
    with pytest.raises(ValueError, match="corruptions must be the same"):
        mean_corruption_error(of, reference)
