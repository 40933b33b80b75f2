"""The differences that paired seeds detect, held against scipy's test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from dropsearch.stats.comparisons import detectable, smallest_rank_sum


@pytest.mark.parametrize("pairs", [6, 8, 10, 13])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 6])
def test_the_bound_rejects_as_scipy_does(pairs: int, alpha: float) -> None:
    bound = smallest_rank_sum(pairs, alpha)
    for _, signs in zip(range(60), np.random.default_rng(1).choice([-1, 1], (60, pairs)), strict=True):
        differences = signs * np.arange(1, pairs + 1)
        total = differences[differences > 0].sum()
        rejected = bound is not None and max(total, pairs * (pairs + 1) // 2 - total) >= bound
        assert rejected == (wilcoxon(differences, method="exact").pvalue <= alpha)


def test_seven_seeds_show_nothing_in_six_contrasts_and_eight_do() -> None:
    assert math.isinf(detectable(7, 6))
    assert math.isfinite(detectable(8, 6))


def test_the_power_is_80_percent() -> None:
    shift = detectable(10, 6)
    noise = np.random.default_rng(7).standard_normal((400, 10)) + shift
    rejected = np.mean([wilcoxon(row, method="exact").pvalue <= 0.05 / 6 for row in noise])
    assert rejected == pytest.approx(0.8, abs=0.07)


def test_more_seeds_detect_less() -> None:
    found = [detectable(seeds, 6) for seeds in (8, 10, 15, 20)]
    assert found == sorted(found, reverse=True)
