from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from dropsearch.config.schema import ConfirmConfig
from dropsearch.core.records import ARMS, ArmOutcome, ComparisonMetric, Confirmed, TestScores, TrialResult, TrialSpec
from dropsearch.stats.comparisons import (
    UNSCORED,
    compared,
    contrasted,
    contrasts_of,
    minimum_seeds,
    planned_contrasts,
)
from dropsearch.stats.paired_tests import holm
from tests.stats.simulations import ALL_ARMS, confirmation, family_wise_error


def arm_with(name, acc, loss=None, seeds=None):
    """An arm whose winner has these test scores."""
    seeds = range(100, 100 + len(acc)) if seeds is None else seeds
    results = tuple(
        TrialResult(TrialSpec(name, number, seed, {}, 1e-3, 0.0, phase="confirm"), "COMPLETE", (), 1.0)
        for number, seed in enumerate(seeds)
    )
    winner = Confirmed(number=0, results=results)
    scores = TestScores("2026-11-01T12:00:00+00:00", tuple(loss or [0.5] * len(acc)), tuple(acc))
    return ArmOutcome(ARMS[name], (), (winner,), winner, scores)


def compare(arms):
    return compared(arms, ComparisonMetric())


@pytest.mark.parametrize("count", range(len(ARMS) + 1))
def test_all_pairs_of_the_arms_that_ran_are_planned_and_the_default_of_seeds_suffices(count):
    for arms in itertools.combinations(ARMS, count):
        planned = planned_contrasts(arms)
        assert {frozenset(pair) for pair in planned} == {frozenset(pair) for pair in itertools.combinations(arms, 2)}
        assert len(planned) == count * (count - 1) // 2
        assert planned == [pair for pair in planned_contrasts(ARMS) if {*pair} <= {*arms}]  # each has one sign
        assert minimum_seeds(max(len(planned), 1)) <= ConfirmConfig().seeds


@pytest.mark.parametrize(
    ("arms", "contrasts"),
    [
        ([], []),
        (["none"], []),
        (["dropout", "batchnorm"], [("batchnorm", "dropout")]),
        (["none", "dropout"], [("dropout", "none")]),
        (["typical", "dropout"], [("dropout", "typical")]),
        (["none", "typical"], [("typical", "none")]),
        (["none", "typical", "batchnorm"], [("typical", "none"), ("batchnorm", "none"), ("batchnorm", "typical")]),
        (["none", "dropout", "typical"], [("typical", "none"), ("dropout", "none"), ("dropout", "typical")]),
    ],
)
def test_only_contrasts_whose_arms_ran_are_planned(arms, contrasts):
    assert planned_contrasts(arms) == contrasts


def test_ten_seeds_can_show_each_pair_of_four_arms():
    levels = {"none": 0.6, "dropout": 0.7, "batchnorm": 0.8, "both": 0.9}
    luck = np.random.default_rng(5).normal(0, 0.01, 10)
    found = compare({name: arm_with(name, level + luck) for name, level in levels.items()})
    assert {frozenset((c.a, c.b)) for c in found} == {frozenset(pair) for pair in itertools.combinations(levels, 2)}
    assert [c.p_holm for c in found] == pytest.approx([6 * 2 / 1024] * 6)


def test_a_seed_without_a_score_leaves_out_luck():
    luck = np.random.default_rng(5)
    arms = {}
    for name, level in (("none", 0.6), ("dropout", 0.8), ("batchnorm", 0.9)):
        examples = [luck.normal(level, 0.01, 50).tolist() for _ in range(10)]
        acc = [float(np.mean(each)) for each in examples]
        if name == "dropout":
            acc[3], examples[3] = math.nan, []
        arm = arm_with(name, acc)
        assert arm.test is not None
        arms[name] = replace(arm, test=replace(arm.test, correct_by_example=tuple(examples)))
    found = {(each.a, each.b): each for each in compare(arms)}
    assert {pair: each.missing for pair, each in found.items()} == {
        ("dropout", "none"): (UNSCORED,),
        ("batchnorm", "none"): (),
        ("batchnorm", "dropout"): (UNSCORED,),
    }
    assert {each.covers for each in found.values()} == {"seeds and test examples"}


def contrast(a, b):
    return compare({"dropout": a, "none": b})[0]


def test_arms_are_paired_by_seed_whatever_their_order():
    a = arm_with("dropout", [0.9, 0.8, 0.7], seeds=[3, 1, 2])
    b = arm_with("none", [0.5, 0.6, 0.4], seeds=[1, 2, 3])
    assert contrast(a, b).differences == pytest.approx((0.5, 0.3, 0.1))


def test_seeds_that_only_one_arm_has_are_no_pairs():
    found = contrast(arm_with("dropout", [0.9, 0.8], seeds=[1, 2]), arm_with("none", [0.5, 0.6], seeds=[2, 3]))
    assert found.differences == pytest.approx((0.3,))
    assert UNSCORED not in found.missing


def test_pairs_that_are_not_finite_are_dropped():
    found = contrast(arm_with("dropout", [0.9, math.nan, 0.8]), arm_with("none", [0.5, 0.6, math.inf]))
    assert found.differences == pytest.approx((0.4,))
    assert UNSCORED in found.missing


def test_a_difference_is_that_of_a_minus_b():
    (comparison,) = compare({"none": arm_with("none", [0.5] * 3), "dropout": arm_with("dropout", [0.75] * 3)})
    assert (comparison.a, comparison.b, comparison.metric) == ("dropout", "none", "test_acc")
    assert comparison.difference.mean == 0.25


def test_arms_whose_test_set_stayed_closed_are_not_compared():
    closed = replace(arm_with("dropout", [0.9] * 3), test=None)
    assert compare({"none": replace(arm_with("none", [0.5] * 3), test=None), "dropout": closed}) == ()


def test_an_arm_without_test_scores_stays_in_the_family_and_makes_nothing_easier_to_show():
    seeds = 8
    good = {"none": arm_with("none", [0.5] * seeds), "batchnorm": arm_with("batchnorm", [0.6] * seeds)}
    (alone,) = compare(good)
    diverged = replace(arm_with("dropout", [0.9] * seeds), test=None, winner=None)
    family = {(c.a, c.b): c for c in compare({**good, "dropout": diverged})}
    assert family["dropout", "none"].p == 1.0
    assert family["batchnorm", "none"].p == alone.p
    assert family["batchnorm", "none"].p_holm == pytest.approx(3 * alone.p)


def test_an_arm_that_diverged_on_every_seed_stays_in_the_family():
    arms = {name: arm_with(name, np.linspace(0.8, 0.9, 6) + shift) for name, shift in [("none", 0), ("both", 0.05)]}
    (alone,) = compare(arms)
    with_diverged = compare(arms | {"dropout": arm_with("dropout", [math.nan] * 6)})
    by_pair = {(c.a, c.b): c for c in with_diverged}
    assert by_pair["dropout", "none"].p == 1.0
    assert math.isnan(by_pair["dropout", "none"].difference.mean)
    assert by_pair["both", "none"].p_holm == pytest.approx(3 * alone.p)


def test_any_number_by_seed_has_the_planned_contrasts_as_its_family():
    values = {"none": {1: 0.0, 2: 0.5, 3: 0.25}, "batchnorm": {3: 0.5, 2: 1.0, 4: 9.0}, "both": {}}
    found = contrasts_of(values, "gap")
    assert [(c.a, c.b, c.metric) for c in found] == [
        ("batchnorm", "none", "gap"),
        ("both", "none", "gap"),
        ("both", "batchnorm", "gap"),
    ]
    assert found[0].differences == (0.25, 0.5)
    assert [c.p_holm for c in found] == holm([c.p for c in found])


def test_a_contrast_says_how_often_a_seed_of_one_beats_a_seed_of_the_other():
    arms = {"none": arm_with("none", [0.5, 0.6, 0.7]), "dropout": arm_with("dropout", [0.6, 0.7, 0.8])}
    (comparison,) = compare(arms)
    assert comparison.effect == pytest.approx(7 / 9)


def test_an_arm_that_diverged_has_no_effect():
    arms = {"none": arm_with("none", [0.5] * 3), "dropout": arm_with("dropout", [math.nan] * 3)}
    assert math.isnan(compare(arms)[0].effect)


@pytest.mark.slow
def test_the_family_wise_error_of_all_planned_contrasts_is_at_most_5_percent():
    experiments = 1000
    error = family_wise_error(experiments, 10, ALL_ARMS, np.random.default_rng(20261102))
    assert error <= 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / experiments)


def test_what_is_compared_with_one_reference_is_one_family():
    seeds = range(7)
    own = {seed: float(seed) for seed in seeds}
    values = {name: {seed: seed + shift for seed in seeds} for name, shift in (("x = 0", 1.0), ("y = 0", -2.0))}
    found = contrasted({**values, "dropout": own}, [("x = 0", "dropout"), ("y = 0", "dropout")], "val_loss")
    assert [c.differences for c in found] == [(1.0,) * 7, (-2.0,) * 7]
    assert [c.p_holm for c in found] == holm([c.p for c in found])


def test_a_seed_that_failed_on_one_side_is_left_out_of_a_pair():
    values = {"x = 0": {1: 1.0, 2: math.inf, 3: 3.0}, "dropout": {3: 0.0, 2: 0.0, 1: 0.0}}
    (found,) = contrasted(values, [("x = 0", "dropout")], "val_loss")
    assert found.differences == (1.0, 3.0)


@pytest.mark.slow
@pytest.mark.parametrize("screening", [4, 10])
def test_winners_chosen_by_few_seeds_are_compared_as_promised(screening: int):
    experiments = 120
    wrong, covered, _ = confirmation(0.0, screening, experiments, np.random.default_rng(20261127))
    assert wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / experiments)
    assert covered >= 0.93
