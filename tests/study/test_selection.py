from __future__ import annotations

import pytest

from dropsearch.core.records import ARMS, Confirmed, EpochMetrics, TrialResult, TrialSpec
from dropsearch.study.selection import candidates, is_in_arm, winner

TYPICAL = {"input": 0.15, "hidden": 0.4}
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


def chosen(arm: str, found: dict[str, list[Confirmed]]) -> Confirmed:
    won = winner(candidates(ARMS[arm], found, ARMS, TYPICAL), len(SEEDS))
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
    assert is_in_arm(ARMS[arm], rates, TYPICAL) is belongs


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


def test_batchnorm_separates_models_with_the_same_rates():
    found = {"none": [confirmed("none", 4, {}, 0.2)], "both": [confirmed("both", 7, {"input": 0.0}, 0.3)]}
    assert chosen("both", found).number == 7
