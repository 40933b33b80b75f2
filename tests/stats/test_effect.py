from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dropsearch.stats.paired_tests import superiority

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


@given(scores, scores)
def test_it_is_the_share_of_all_couples_with_ties_half(a, b):
    couples = [(one > other) + (one == other) / 2 for one, other in itertools.product(a, b)]
    assert superiority(a, b) == pytest.approx(sum(couples) / len(couples))


@given(scores, scores)
def test_it_is_the_statistic_of_mann_and_whitney_as_a_share(a, b):
    statistic = stats.mannwhitneyu(a, b).statistic
    assert superiority(a, b) == pytest.approx(statistic / (len(a) * len(b)))


@given(scores, scores)
def test_two_arms_share_one_whole(a, b):
    assert superiority(a, b) + superiority(b, a) == pytest.approx(1)


def test_pairs_that_differ_by_a_hair_are_no_large_effect():
    luck = [0.1 * seed for seed in range(10)]
    assert superiority([value + 0.001 for value in luck], luck) == pytest.approx(0.55)


@pytest.mark.parametrize(("a", "b"), [([], [1.0]), ([1.0], []), ([], [])])
def test_nothing_has_no_effect_that_could_be_known(a, b):
    assert math.isnan(superiority(a, b))
