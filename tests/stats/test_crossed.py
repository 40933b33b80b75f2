from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropsearch.stats.comparisons import contrasted, shown_side
from dropsearch.stats.intervals import crossed_difference
from tests.stats.simulations import LUCK, coverage_over_both, crossed_family_wise_errors


def test_the_variance_is_that_of_resampling_seeds_and_examples():
    generator = np.random.default_rng(3)
    found = generator.normal(size=(40, 1)) + generator.normal(size=60) + 0.1 * generator.normal(size=(40, 60))
    interval, _ = crossed_difference(found)
    means = [found[generator.integers(0, 40, 40)][:, generator.integers(0, 60, 60)].mean() for _ in range(4000)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert (interval.high - interval.low) == pytest.approx(high - low, rel=0.08)
    assert interval.mean == pytest.approx(found.mean())


def test_without_differences_between_seeds_the_examples_decide():
    one_example_in_120 = np.zeros((10, 360))
    one_example_in_120[:, :3] = 1
    interval, p = crossed_difference(one_example_in_120)
    assert interval.low <= 0 < interval.high
    assert p > 0.05


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 40))
def test_interval_and_p_agree(seed, seeds, examples):
    generator = np.random.default_rng(seed)
    found = generator.integers(-1, 2, (seeds, examples)) + 0.2 * generator.integers(0, 3)
    interval, p = crossed_difference(found)
    assert (p < 0.05) is not (interval.low <= 0 <= interval.high)
    assert min(found.min(), 0) <= interval.low <= interval.mean <= interval.high <= max(found.max(), 0)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_one_seed_or_one_example_has_no_interval(shape):
    interval, p = crossed_difference(np.ones(shape))
    assert math.isnan(interval.low)
    assert p == 1.0


def test_equal_models_have_no_difference():
    assert crossed_difference(np.zeros((10, 30)))[1] == 1.0


def test_three_examples_of_a_test_set_are_not_shown():
    right = np.ones((10, 359))
    wrong = right.copy()
    wrong[:, :3] = 0
    seeds = dict(enumerate(right.mean(axis=1).tolist())), dict(enumerate(wrong.mean(axis=1).tolist()))
    values = {"a": seeds[0], "b": seeds[1]}
    (by_seeds,) = contrasted(values, [("a", "b")], "test_acc")
    (by_both,) = contrasted(
        values, [("a", "b")], "test_acc", {"a": dict(enumerate(right)), "b": dict(enumerate(wrong))}
    )
    assert shown_side(by_seeds) == 1
    assert shown_side(by_both) == 0
    assert (by_seeds.covers, by_both.covers) == ("seeds", "seeds and test examples")
    assert by_both.over_seeds == by_seeds.difference
    assert by_both.difference.mean == by_seeds.difference.mean


def test_an_arm_without_results_by_example_is_compared_over_seeds():
    values = {name: {seed: float(seed + shift) for seed in range(8)} for shift, name in enumerate(("a", "b"))}
    (found,) = contrasted(values, [("a", "b")], "test_acc", {"a": {seed: [1.0, 0.0] for seed in range(8)}})
    assert found.covers == "seeds"


@pytest.mark.slow
@pytest.mark.parametrize("luck", LUCK)
def test_a_difference_between_equal_arms_is_shown_in_at_most_5_percent(luck):
    experiments = 150
    by_seeds, by_both = crossed_family_wise_errors(luck, experiments, 10, np.random.default_rng(20261126))
    assert by_both <= 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / experiments)
    assert by_both <= by_seeds
    if luck == "mostly of examples":
        assert by_seeds > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("luck", LUCK)
def test_the_interval_over_both_covers_93_to_97_percent(luck):
    covered = coverage_over_both(luck, 1000, 10, np.random.default_rng(20261127))
    assert 0.93 <= covered <= 0.97
