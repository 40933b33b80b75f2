from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dropsearch.stats.intervals import mean_interval

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
