from __future__ import annotations

from typing import Any

import pytest

from dropsearch.core.records import ARMS, Confirmed, EpochMetrics, Site, TrialResult, TrialSpec
from dropsearch.study.search_space import Space, SpaceSettings
from dropsearch.study.selection import (
    candidates,
    confirmed_configurations,
    planned_retrainings,
    retrained_at_once,
    retraining_count,
    winner,
)

TYPICAL = {"input": 0.15, "hidden": 0.4}
SITES = tuple(Site(name, name, 0.5, 1) for name in TYPICAL)
SEEDS = (11, 12, 13)


def confirmed(arm: str, number: int, rates: dict[str, float], loss: float) -> Confirmed:
    results = tuple(
        TrialResult(
            TrialSpec(arm, index, seed, rates, 1e-3, 0.0, phase="confirm", configuration=number),
            "COMPLETE",
            (EpochMetrics(0, loss, loss, loss + 0.01 * index),),
            1.0,
        )
        for index, seed in enumerate(SEEDS)
    )
    return Confirmed(number, results)


def space(arm: str, **settings: Any) -> Space:
    return Space(SpaceSettings(**settings), ARMS[arm], SITES, TYPICAL)


def chosen(arm: str, found: dict[str, list[Confirmed]]) -> Confirmed:
    won = winner(candidates(space(arm), found, ARMS), len(SEEDS))
    assert won is not None
    return won


@pytest.mark.parametrize(
    ("arm", "rates", "belongs"),
    [
        ("none", {}, True),
        ("none", {"input": 0.0, "hidden": 0.0}, True),
        ("batchnorm", {"input": 0.0, "hidden": 0.1}, False),
        ("dropout", {}, True),
        ("dropout_shared", {"input": 0.3, "hidden": 0.3}, True),
        ("dropout_shared", {"input": 0.3, "hidden": 0.31}, False),
        ("dropout_shared", {}, True),
        ("typical", TYPICAL, True),
        ("typical", {}, False),
    ],
)
def test_which_rates_an_arm_can_have(arm, rates, belongs):
    assert space(arm).holds(rates) is belongs


@pytest.mark.parametrize(
    ("settings", "rates", "belongs"),
    [
        ({"low": 0.1, "zero_share": 0.0}, {}, False),
        ({"low": 0.1, "zero_share": 0.0}, {"input": 0.1, "hidden": 0.9}, True),
        ({"low": 0.1, "zero_share": 0.2}, {}, True),
        ({"low": 0.0, "zero_share": 0.0}, {}, True),
        ({"low": 0.1}, {"input": 0.05, "hidden": 0.4}, False),
        ({"high": 0.3}, TYPICAL, False),
        ({"rates": "shared"}, TYPICAL, False),
        ({"rates": "shared"}, {"input": 0.2, "hidden": 0.2}, True),
        ({"rates": "depth"}, TYPICAL, True),
        ({"rates": "depth", "low": 0.2, "zero_share": 0.0}, TYPICAL, False),
        ({"rates": "step"}, TYPICAL, False),
        ({"rates": "step"}, {"input": 0.2}, True),
        ({"rates": "step"}, {"hidden": 0.2}, False),
        ({"rates": "step"}, {}, True),
    ],
)
def test_which_rates_the_space_of_an_arm_contains(settings, rates, belongs):
    assert space("dropout", **settings).holds(rates) is belongs


def test_an_arm_does_not_choose_rates_outside_of_its_space():
    found = {"none": [confirmed("none", 4, {}, 0.2)], "dropout": [confirmed("dropout", 7, {"input": 0.5}, 0.3)]}
    narrow = space("dropout", low=0.1, zero_share=0.2), space("dropout", low=0.1, zero_share=0.0)
    assert [[each.number for each in candidates(each, found, ARMS)] for each in narrow] == [[7, 4], [7]]


@pytest.mark.parametrize(("off", "on"), [("none", "dropout"), ("batchnorm", "both"), ("none", "dropout_shared")])
@pytest.mark.parametrize(("losses", "number"), [((0.3, 0.2), 7), ((0.2, 0.3), 4)])
def test_arms_whose_best_rates_are_zero_choose_one_model(off, on, losses, number):
    zeros = dict.fromkeys(TYPICAL, 0.0)
    found = {off: [confirmed(off, 4, {}, losses[0])], on: [confirmed(on, 7, zeros, losses[1])]}
    one, other = chosen(off, found), chosen(on, found)
    assert one.number == other.number == number
    assert one.val_loss == other.val_loss
    assert {result.spec.arm for result in one.results + other.results} == {off if number == 4 else on}


def test_a_better_model_without_dropout_is_the_choice_of_the_arm_with_dropout():
    found = {"none": [confirmed("none", 4, {}, 0.2)], "dropout": [confirmed("dropout", 7, {"input": 0.5}, 0.3)]}
    won = chosen("dropout", found)
    assert (won.owner, won.number, won.drops) == ("none", 4, False)
    assert won.results[0].spec.rates == {"input": 0.0, "hidden": 0.0}
    assert chosen("none", found).owner == ""


def test_a_model_with_dropout_stays_out_of_the_arm_without():
    found = {"none": [confirmed("none", 4, {}, 0.3)], "dropout": [confirmed("dropout", 7, {"input": 0.5}, 0.2)]}
    assert chosen("none", found).number == 4
    assert chosen("dropout", found).number == 7


def test_an_arm_that_completed_no_trial_has_chosen_nothing():
    found = {"none": [confirmed("none", 4, {}, 0.2)], "dropout": []}
    assert candidates(space("dropout"), found, ARMS) == ()


def test_batchnorm_separates_models_with_the_same_rates():
    found = {"none": [confirmed("none", 4, {}, 0.2)], "both": [confirmed("both", 7, {"input": 0.0}, 0.3)]}
    assert chosen("both", found).number == 7


MANY = tuple(range(100, 110))
"""Ten seeds."""


def searched(number: int) -> TrialResult:
    return TrialResult(TrialSpec("dropout", number, number, {}, 1e-3, 0.0), "COMPLETE", (), 1.0)


def retrained(number: int, seed: int, loss: float) -> TrialResult:
    spec = TrialSpec("dropout", 0, seed, {}, 1e-3, 0.0, phase="confirm", configuration=number)
    return TrialResult(spec, "COMPLETE", (EpochMetrics(0, loss, loss, loss),), 1.0)


def rounds(losses: dict[int, float | dict[int, float]], screening: int = 4, seeds: tuple[int, ...] = MANY):
    """Retrain what is planned until nothing is missing; return the number in each round, and the results."""
    configurations = [searched(number) for number in losses]
    done: list[TrialResult] = []
    counts = []
    while missing := [
        key
        for key in planned_retrainings(configurations, done, seeds, screening)
        if key not in {(r.spec.configuration, r.spec.seed) for r in done}
    ]:
        counts.append(len(missing))
        for number, seed in missing:
            own = losses[number]
            done.append(retrained(number, seed, own if isinstance(own, float) else own.get(seed, own[0])))
    return counts, confirmed_configurations(configurations, done, seeds)


def test_the_best_of_the_screening_is_retrained_on_all_seeds():
    counts, found = rounds({1: 0.3, 2: 0.2, 3: 0.4})
    assert counts == [12, 6]
    assert {each.number: len(each.results) for each in found} == {1: 4, 2: 10, 3: 4}
    won = winner(found, len(MANY))
    assert won is not None
    assert won.number == 2
    assert won.seeds == MANY


def test_only_the_screening_seeds_choose_the_finalist():
    late = {0: 0.2, **dict.fromkeys(MANY[4:], 0.9)}
    counts, found = rounds({1: 0.3, 2: late})
    assert counts == [8, 6]
    assert {each.number: len(each.results) for each in found} == {1: 4, 2: 10}


def test_the_next_best_follows_a_finalist_that_diverges():
    diverges = {0: 0.1, MANY[7]: float("inf")}
    counts, found = rounds({1: 0.3, 2: diverges, 3: 0.2})
    assert counts == [12, 6, 6]
    won = winner(found, len(MANY))
    assert won is not None
    assert won.number == 3


def test_a_configuration_that_diverges_in_the_screening_is_left_out():
    counts, found = rounds({1: {0: 0.1, MANY[0]: float("inf")}, 2: 0.2})
    assert counts == [8, 6]
    assert {each.number: len(each.results) for each in found} == {1: 4, 2: 10}


def test_no_finalist_where_all_diverge():
    counts, found = rounds({1: float("inf"), 2: float("inf")})
    assert counts == [8]
    assert winner(found, len(MANY)) is None


@pytest.mark.parametrize("screening", [1, 2, 4, 10, 20])
@pytest.mark.parametrize("seeds", [1, 2, 5, 10])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_the_number_of_retrainings_is_known_before(top_k, seeds, screening):
    counts, _ = rounds({number: 0.1 * number for number in range(1, top_k + 1)}, screening, MANY[:seeds])
    assert sum(counts) == retraining_count(top_k, seeds, screening)
    assert max(counts) == retrained_at_once(top_k, seeds, screening)


def test_more_seeds_for_a_finished_study_extend_its_finalist():
    _, found = rounds({1: 0.3, 2: 0.2}, 4, MANY[:6])
    done = [result for each in found for result in each.results]
    planned = planned_retrainings([searched(1), searched(2)], done, MANY, 4)
    assert set(planned) - {(r.spec.configuration, r.spec.seed) for r in done} == {(2, seed) for seed in MANY[6:]}
