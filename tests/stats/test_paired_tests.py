from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dropsearch.stats.comparisons import minimum_seeds
from dropsearch.stats.paired_tests import holm, wilcoxon_exact

whole = st.integers(-6, 6).map(float)


def _by_enumeration(differences):
    """All 2^n signs, one by one: the judge for ties and zeros."""
    values = np.array([d for d in differences if d != 0])
    if values.size == 0:
        return 1.0
    ranks = stats.rankdata(np.abs(values))
    signs = np.array(list(itertools.product([-1, 1], repeat=values.size)))
    sums = np.abs(signs @ ranks)
    return float(np.mean(sums >= abs(np.sign(values) @ ranks)))


@given(st.lists(whole, max_size=9))
def test_p_with_ties_and_zeros_is_that_of_all_signs(differences):
    assert wilcoxon_exact(differences) == pytest.approx(_by_enumeration(differences), rel=1e-12)


@given(st.integers(1, 40), st.integers(0, 10_000))
def test_p_without_ties_is_scipys(count, seed):
    differences = np.random.default_rng(seed).normal(0.3, 1, count)
    assert wilcoxon_exact(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue, rel=1e-9)


@given(st.lists(whole, max_size=12))
def test_p_does_not_care_which_arm_comes_first(differences):
    assert wilcoxon_exact(differences) == wilcoxon_exact([-d for d in differences])


@pytest.mark.parametrize("differences", [[], [0.0], [0.0] * 10])
def test_differences_that_are_all_zero_give_p_of_one(differences):
    assert wilcoxon_exact(differences) == 1.0


def test_differences_that_are_equal_but_for_rounding_are_ties():
    rounded = [0.9 - 0.8, 0.8 - 0.7, 0.4 - 0.3, 0.1 - 0.2]
    assert len(set(map(abs, rounded))) > 1
    assert wilcoxon_exact(rounded) == wilcoxon_exact([1.0, 1.0, 1.0, -1.0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_difference_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        wilcoxon_exact([1.0, bad])


def test_holm_agrees_with_the_textbook_example():
    # Smallest times 4, next times 3, and never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_of_nothing_is_nothing():
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values):
    rejected, by_size = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
    for step, index in enumerate(by_size):
        if p_values[index] * (len(p_values) - step) > 0.05:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_raw_p_and_bonferronis(p_values):
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        assert raw <= adjusted <= min(1.0, raw * len(p_values))


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(bad):
    with pytest.raises(ValueError, match="must lie in"):
        holm([0.5, bad])


@pytest.mark.parametrize(("contrasts", "seeds"), [(1, 6), (3, 7), (5, 8), (6, 8), (7, 9)])
def test_the_fewest_seeds_are_those_that_the_exact_test_needs(contrasts, seeds):
    assert minimum_seeds(contrasts) == seeds
    assert holm([wilcoxon_exact(range(1, seeds + 1))] + [1.0] * (contrasts - 1))[0] < 0.05
    assert holm([wilcoxon_exact(range(1, seeds))] + [1.0] * (contrasts - 1))[0] >= 0.05


@pytest.mark.parametrize(("contrasts", "level"), [(0, 0.05), (1, 0.0), (1, 1.0)])
def test_seeds_for_no_contrast_or_no_level_are_refused(contrasts, level):
    with pytest.raises(ValueError, match="must hold"):
        minimum_seeds(contrasts, level)
