from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dropsearch.stats.intervals import bootstrap_mean, mean_interval, studentised_bounds

scores = st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 6))


@given(st.lists(scores, min_size=2, max_size=30))
def test_the_mean_interval_is_students(values):
    interval = mean_interval(values)
    if np.ptp(values) == 0:
        assert interval.low == interval.high == interval.mean
        return
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)


def test_one_value_has_a_mean_and_no_interval():
    interval = mean_interval([0.9])
    assert interval.mean == 0.9
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf]])
def test_values_that_are_not_finite_have_no_mean(values):
    assert math.isnan(mean_interval(values).mean)


def _coverage(samples, mean):
    lows, highs = studentised_bounds(samples)
    return float(np.mean((lows <= mean) & (mean <= highs)))


DIFFERENCES = {
    "normal": (lambda r, shape: r.normal(0.3, 1, shape), 0.3),
    "gamma, skewness 1": (lambda r, shape: r.gamma(4, size=shape), 4.0),
    "gamma, skewness 1.4": (lambda r, shape: r.gamma(2, size=shape), 2.0),
    "of two gammas": (lambda r, shape: r.gamma(2, size=shape) - 2 * r.gamma(2, size=shape), -2.0),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_ten_pairs_are_covered_in_93_to_97_of_100_experiments(name):
    draw, mean = DIFFERENCES[name]
    samples = draw(np.random.default_rng(20261101), (1500, 10))
    assert 0.93 <= _coverage(samples, mean) <= 0.97


def test_the_percentile_bootstrap_would_cover_too_few():
    generator = np.random.default_rng(5)
    samples = generator.normal(size=(1000, 10))
    means = samples[:, generator.integers(0, 10, (1000, 10))].mean(axis=2)
    lows, highs = np.quantile(means, [0.025, 0.975], axis=1)
    assert np.mean((lows <= 0) & (highs >= 0)) < 0.93


def test_the_interval_of_one_row_is_that_of_its_values():
    values = np.random.default_rng(3).normal(size=10)
    lows, highs = studentised_bounds(values[None, :])
    interval = bootstrap_mean(values.tolist())
    assert (interval.low, interval.high) == (lows[0], highs[0])


def test_resamples_agree_with_resampling_value_by_value():
    sample = np.random.default_rng(8).gamma(3, size=10)
    drawn = sample[np.random.default_rng(9).integers(0, 10, (200_000, 10))]
    t = (drawn.mean(axis=1) - sample.mean()) / (drawn.std(axis=1, ddof=1) / math.sqrt(10))
    error = sample.std(ddof=1) / math.sqrt(10)
    expected = sample.mean() - np.quantile(t, [0.975, 0.025]) * error
    lows, highs = studentised_bounds(sample[None, :])
    assert np.allclose([lows[0], highs[0]], expected, atol=0.25 * error)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_values_get_students_interval(count):
    values = np.random.default_rng(1).normal(size=count).tolist()
    assert bootstrap_mean(values) == mean_interval(values)


def test_values_without_spread_give_an_interval_of_one_point():
    interval = bootstrap_mean([0.25] * 10)
    assert (interval.mean, interval.low, interval.high) == (0.25, 0.25, 0.25)


def test_too_many_ties_fall_back_to_students_interval():
    values = [0.0] * 9 + [0.01]
    assert bootstrap_mean(values) == mean_interval(values)


@given(st.lists(scores, min_size=2, max_size=15))
def test_the_interval_is_finite_and_in_order(values):
    interval = bootstrap_mean(values)
    assert -math.inf < interval.low <= interval.high < math.inf
