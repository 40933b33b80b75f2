"""Conversion of ranges to Optuna distributions, and of parameters to values."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from dropsearch.core.records import Choice, Numbers, Range
from dropsearch.study.proposals import propose
from dropsearch.study.search_space import distribution, parameter, value_of

RANGES: list[Range] = [
    Choice((32, 64, 128)),
    Choice((None, 2.5, "x", True)),
    Choice(([64, 64], [128, 128, 128], [])),
    Numbers(0.5, 0.99),
    Numbers(1e-4, 1e-1, log=True),
    Numbers(0.1, 0.9, step=0.2),
    Numbers(16, 128, step=16),
    Numbers(4, 512, log=True, step=1),
]


def proposed(searched: Range, trials: int) -> list[Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial, given = optuna.create_trial(state=TrialState.RUNNING), {"x": distribution(searched)}
    return [value_of(searched, propose(study, trial, given, {}, {})["x"]) for _ in range(trials)]


@pytest.mark.parametrize("searched", RANGES, ids=str)
def test_proposals_lie_in_the_range(searched: Range) -> None:
    values = proposed(searched, 40)
    assert all(searched.holds(value) for value in values)
    if isinstance(searched, Choice):
        assert {repr(value) for value in values} == {repr(value) for value in searched.values}
    else:
        assert {type(value) for value in values} == {int if searched.is_integer else float}


@pytest.mark.parametrize("searched", RANGES, ids=str)
def test_values_round_trip(searched: Range) -> None:
    for value in (*searched.ends, searched.middle):
        assert distribution(searched)._contains(distribution(searched).to_internal_repr(parameter(value)))
        assert value_of(searched, parameter(value)) == value


def test_lists_are_stored_as_text() -> None:
    assert parameter([64, 64]) == "[64, 64]"
