from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropsearch.analysis.budget import random_search, repeated_searches
from dropsearch.stats.intervals import mean_interval
from tests.stats.simulations import budget_coverage, repeats_coverage, scored

losses = st.lists(st.floats(0, 10), min_size=5, max_size=9)


def by_subsets(scores: list[float], k: int) -> float:
    """The judge: the best of every subset of k trials, one by one."""
    return float(np.mean([min(subset) for subset in itertools.combinations(scores, k)]))


@given(losses)
def test_the_expected_best_of_k_is_the_mean_over_all_subsets_of_k(scores):
    budget = random_search(scored(scores))
    assert budget.trials == tuple(range(1, len(scores) + 1))
    assert budget.expected == pytest.approx([by_subsets(scores, k) for k in budget.trials], rel=1e-9, abs=1e-12)


def test_the_estimate_has_no_bias():
    generator = np.random.default_rng(1)
    means = np.mean([random_search(scored(generator.random(8).tolist())).expected for _ in range(400)], axis=0)
    assert means == pytest.approx([1 / (k + 1) for k in range(1, 9)], abs=0.02)


@given(losses)
def test_the_band_holds_the_estimate_and_does_not_rise(scores):
    budget = random_search(scored(scores))
    for low, expected, high in zip(budget.low, budget.expected, budget.high, strict=True):
        assert 0 <= low <= expected <= high <= max(scores)
    for line in (budget.expected, budget.low, budget.high):
        assert all(after <= before + 1e-9 for before, after in itertools.pairwise(line))


@given(losses, st.floats(0.5, 3), st.floats(0, 5))
def test_another_unit_gives_the_same_curve_in_that_unit(scores, scale, shift):
    there = random_search(scored([scale * score + shift for score in scores]), floor=shift)
    here = random_search(scored(scores))
    for line in ("expected", "low", "high"):
        moved = [scale * value + shift for value in getattr(here, line)]
        assert getattr(there, line) == pytest.approx(moved, rel=1e-6, abs=1e-6)


def test_without_a_floor_nothing_bounds_the_best_from_below():
    budget = random_search(scored([1.0, 2.0, 3.0, 4.0, 5.0]), floor=-math.inf)
    assert set(budget.low) == {-math.inf}
    assert all(map(math.isfinite, budget.high))


def test_trials_that_were_pruned_or_failed_count_as_the_worst_complete_one():
    scores = [0.5, 0.1, 0.4, 0.3, 0.9, 0.2]
    states = ["COMPLETE"] * 6 + ["PRUNED", "FAIL"]
    found = random_search(scored([*scores, 0.05, 0.01], states))
    assert found == random_search(scored([*scores, 0.9, 0.9]))


def test_a_long_search_has_fewer_points_and_ends_with_its_best():
    scores = np.random.default_rng(2).random(300).tolist()
    budget = random_search(scored(scores))
    assert len(budget.trials) <= 60
    assert (budget.trials[0], budget.trials[-1]) == (1, 300)
    assert budget.expected[0] == pytest.approx(np.mean(scores))
    assert budget.expected[-1] == pytest.approx(min(scores))


@pytest.mark.parametrize("complete", [0, 4])
def test_of_too_few_complete_trials_nothing_is_said(complete):
    states = ["COMPLETE"] * complete + ["FAIL"] * 10
    assert random_search(scored([0.5] * len(states), states)) is None
    assert repeated_searches([scored([0.5] * 10, ["FAIL"] * 10)] * 2) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bowl of 6 sites", "half good, half far off", "one in ten is good", "gamma"])
def test_the_band_of_random_search_covers_what_it_says(name):
    covered = budget_coverage(name, 20, 150, np.random.default_rng(20261122))
    assert min(covered.values()) >= 0.95 - 2.33 * math.sqrt(0.05 * 0.95 / 150)


def test_repeated_searches_give_the_mean_of_their_best_so_far():
    budget = repeated_searches([scored([0.5, 0.6, 0.2]), scored([0.9, 0.3, 0.4])])
    assert budget.source == "repeats"
    assert budget.expected == pytest.approx((0.7, 0.4, 0.25))


def test_the_band_of_a_few_repeated_searches_is_students():
    searches = [[0.5, 0.6, 0.2], [0.9, 0.3, 0.4], [0.8, 0.7, 0.3]]
    budget = repeated_searches([scored(search) for search in searches], floor=-math.inf)
    last = mean_interval([0.2, 0.3, 0.3])
    assert (budget.low[-1], budget.high[-1]) == (last.low, last.high)


def test_no_band_goes_below_the_floor():
    assert min(repeated_searches([scored([0.1, 0.9, 0.8]), scored([0.9, 0.9, 0.1])]).low) == 0


def test_searches_of_unequal_length_are_compared_up_to_the_shortest():
    assert repeated_searches([scored([0.5] * 7), scored([0.4] * 5)]).trials == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("searches", [[], [[0.5] * 9], [[0.5] * 9, []]])
def test_one_search_has_no_spread(searches):
    assert repeated_searches([scored(search) for search in searches]) is None


def test_the_band_of_five_repeated_searches_covers_what_it_says():
    covered = repeats_coverage("bowl of 6 sites", 20, 5, 200, np.random.default_rng(3))
    assert min(covered.values()) >= 0.95 - 2.33 * math.sqrt(0.05 * 0.95 / 200)
