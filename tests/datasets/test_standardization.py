from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.preprocessing import StandardScaler

from dropsearch.datasets.raw_data import measure


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4))))
def test_mean_and_spread_are_those_of_scikit_learn(values):
    judge = StandardScaler().fit(np.moveaxis(values, 1, 2).reshape(-1, values.shape[1]))
    scale = measure(torch.from_numpy(values))
    np.testing.assert_allclose(scale.mean, judge.mean_, rtol=1e-6)
    np.testing.assert_allclose(scale.std, judge.scale_, rtol=1e-6)


def test_more_rows_than_are_summed_at_a_time_count_alike():
    x = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (10_000, 2)))
    scale = measure(x)
    torch.testing.assert_close(scale.mean.double(), x.mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(scale.std.double(), x.std(0, correction=0), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("shape", "channel"), [((50, 3), 1), ((50, 3, 4), 1), ((50, 3, 4, 4), 1)])
def test_what_was_measured_is_standardised_to_mean_0_and_spread_1(shape, channel):
    x = torch.from_numpy(np.random.default_rng(0).normal(3, 2, shape))
    again = measure(measure(x).apply(x, channel))
    torch.testing.assert_close(again.mean, torch.zeros(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(again.std, torch.ones(3), rtol=0, atol=1e-6)


def test_a_channel_that_never_varies_becomes_zero():
    x = torch.full((5, 1), 7.0)
    assert measure(x).apply(x, 1).tolist() == [[0.0]] * 5


def test_the_given_values_are_left_as_they_are():
    x = torch.arange(6.0).view(3, 2)
    measure(x).apply(x, 1)
    assert x.flatten().tolist() == [0, 1, 2, 3, 4, 5]
