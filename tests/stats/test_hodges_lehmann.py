from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dropsearch.stats.comparisons import minimum_seeds
from dropsearch.stats.paired_tests import paired_difference, walsh_averages, wilcoxon_exact
from tests.stats.simulations import interval_coverage, intervals_that_leave_the_data

ties = st.integers(-3, 3).map(lambda value: value / 360)
skewed = st.floats(-3, 5).map(math.exp)
differences = st.lists(st.one_of(ties, st.just(0.0), skewed), min_size=6, max_size=14)


def of(values):
    return paired_difference(values, [0.0] * len(values))


@given(differences)
def test_the_interval_stays_in_the_range_of_the_data(values):
    found = of(values)
    assert min(values) <= found.low <= found.mean <= found.high <= max(values)


@given(differences)
def test_the_interval_agrees_with_p(values):
    found, p = of(values), wilcoxon_exact(values)
    if p >= 0.05:
        assert found.low <= 0 <= found.high
    if not found.low <= 0 <= found.high:
        assert p < 0.05


@given(st.lists(st.floats(-100, 100).filter(lambda v: abs(v) > 1e-3), min_size=6, max_size=12, unique_by=abs))
def test_without_ties_a_small_p_and_an_interval_without_zero_are_the_same(values):
    averages = walsh_averages(np.array(values))
    if np.abs(averages).min() > 1e-6 and np.diff(np.sort(np.abs(values))).min() > 1e-6:
        found = of(values)
        assert (wilcoxon_exact(values) < 0.05) is not (found.low <= 0 <= found.high)


@pytest.mark.parametrize("count", [6, 8, 10, 15])
def test_without_ties_the_bounds_are_the_walsh_averages_of_the_textbook(count):
    values = np.random.default_rng(count).normal(0.3, 1, count)
    ordered = walsh_averages(values)
    quantile = max(
        k for k in range(ordered.size // 2) if stats.wilcoxon(_with_statistic(k, count), method="exact").pvalue < 0.05
    )
    found = of(values.tolist())
    assert (found.low, found.high) == (ordered[quantile], ordered[-1 - quantile])
    assert found.mean == np.median(ordered)


def _with_statistic(k, count):
    """Differences of which the negative ranks sum to k, greedily from the largest rank."""
    signs = np.ones(count)
    for rank in range(count, 0, -1):
        if rank <= k:
            signs[rank - 1], k = -1, k - rank
    return signs * np.arange(1, count + 1)


def test_differences_between_0_28_and_3_34_have_an_interval_between_them():
    found = of([0.28, 0.31, 0.35, 0.42, 0.55, 0.81, 1.2, 1.9, 2.8, 3.34])
    assert 0.28 <= found.low < found.mean < found.high <= 3.34


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fewer_than_six_pairs_have_an_estimate_and_no_interval(count):
    values = [0.1 * number for number in range(1, count + 1)]
    found = of(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert minimum_seeds(1) == 6


def test_equal_differences_give_an_interval_of_one_point():
    found = paired_difference([0.75] * 10, [0.5] * 10)
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


def test_differences_that_are_equal_but_for_rounding_give_one_point():
    found = paired_difference([0.3] * 5 + [0.9] * 5, [0.1] * 5 + [0.7] * 5)
    assert found.high - found.low < 1e-12


def test_a_few_ones_among_zeros_show_nothing():
    assert (of([0.0] * 9 + [0.01]).low, of([0.0] * 9 + [0.01]).mean) == (0.0, 0.0)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf]])
def test_values_that_are_not_finite_have_no_estimate(values):
    assert math.isnan(of(values).mean)


def test_pairs_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_difference([1.0, 2.0], [1.0])


@given(differences)
def test_swapping_the_arms_mirrors_the_interval(values):
    there, back = of(values), of([-value for value in values])
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low), rel=1e-9, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "gamma, skewness 1"])
def test_ten_pairs_are_covered_in_93_to_97_of_100_experiments(name):
    assert 0.93 <= interval_coverage(name, 1500, 10, np.random.default_rng(20261126)) <= 0.97


def test_ties_make_the_interval_longer_and_never_too_short():
    covered = interval_coverage("ties: of accuracies, sd 2 examples", 600, 10, np.random.default_rng(20261126))
    assert covered >= 0.93


def test_no_interval_leaves_the_data_in_draws_with_ties_and_zeros():
    assert intervals_that_leave_the_data(300, np.random.default_rng(20261127)) == 0
