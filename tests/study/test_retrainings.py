from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropsearch.core.records import TrialSpec
from dropsearch.study.feeds import trial_keys
from dropsearch.study.retrainings import RETRAININGS, single_sites


def winner(**rates: float) -> TrialSpec:
    return TrialSpec("dropout", 3, 7, rates, lr=1e-2, weight_decay=1e-4, phase="confirm", configuration=5)


def test_each_site_is_set_to_zero_and_to_the_mean():
    found = single_sites(winner(a=0.5, b=0.25, c=0.75))
    assert {name: varied.rates for name, varied in found.items()} == {
        "a = 0": {"a": 0.0, "b": 0.25, "c": 0.75},
        "b = 0": {"a": 0.5, "b": 0.0, "c": 0.75},
        "b = mean": {"a": 0.5, "b": 0.625, "c": 0.75},
        "c = 0": {"a": 0.5, "b": 0.25, "c": 0.0},
        "c = mean": {"a": 0.5, "b": 0.25, "c": 0.375},
    }


def test_other_fields_equal_the_winner():
    for name, varied in RETRAININGS["sites"].of(winner(a=0.5, b=0.25)).items():
        assert (varied.lr, varied.weight_decay, varied.configuration) == (1e-2, 1e-4, 5)
        assert varied.variation == name


@pytest.mark.parametrize(
    ("rates", "names"), [({"a": 0.5}, ["a = 0"]), ({"a": 0.0}, []), ({}, []), ({"a": 0.0, "b": 0.0}, [])]
)
def test_variations_without_effect_are_omitted(rates: dict[str, float], names: list[str]):
    assert list(single_sites(winner(**rates))) == names


@given(st.lists(st.floats(0, 0.95), max_size=5))
def test_variations_change_one_rate_and_are_distinct(rates: list[float]):
    own = {f"site{i}": rate for i, rate in enumerate(rates)}
    found = single_sites(winner(**own))
    for varied in found.values():
        assert [varied.rates[site] != own[site] for site in own].count(True) == 1
        assert all(0 <= rate <= 0.95 for rate in varied.rates.values())


def test_trial_keys():
    found = trial_keys(dict(enumerate(single_sites(winner(a=0.5, b=0.25)).values())), (11, 12))
    assert found == [(5, index, seed) for index in range(4) for seed in (11, 12)]
