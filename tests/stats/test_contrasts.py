from __future__ import annotations

import math

import pytest

from dropsearch.core.records import ArmEvidence
from dropsearch.stats.comparisons import contrasts
from dropsearch.stats.paired_tests import holm, wilcoxon_exact

SEEDS = (11, 12, 13, 14, 15, 16, 17)


def arm(values: tuple[float, ...], seeds: tuple[int, ...] = SEEDS) -> ArmEvidence:
    return ArmEvidence(seeds, {"gap": values})


def test_numbers_are_paired_by_seed_whatever_their_order():
    one = arm((1.0, 2.0, 4.0), (11, 12, 13))
    other = arm((5.0, 3.0, 0.5), (14, 12, 11))
    (found,) = contrasts({"none": other, "dropout": one})
    assert (found.a, found.b, found.metric) == ("dropout", "none", "gap")
    assert found.differences == (0.5, -1.0)


def test_each_measure_is_adjusted_separately():
    arms = {
        name: ArmEvidence(SEEDS, {"gap": tuple(shift + 0.01 * i for i in range(7)), "area": (0.5,) * 7})
        for shift, name in enumerate(("none", "dropout", "batchnorm", "both"))
    }
    found = contrasts(arms)
    for name in ("gap", "area"):
        family = [c for c in found if c.metric == name]
        assert len(family) == 6
        assert [c.p for c in family] == [wilcoxon_exact(c.differences) for c in family]
        assert [c.p_holm for c in family] == holm([c.p for c in family])


def test_an_arm_that_lacks_a_measure_has_no_contrast_and_makes_no_other_harder_to_show():
    lacking = arm((math.nan,) * 7)
    full = {"none": arm(tuple(map(float, range(7)))), "dropout": arm(tuple(float(i + 1) for i in range(7)))}
    found = contrasts({**full, "batchnorm": lacking, "both": lacking})
    assert [(c.a, c.b) for c in found] == [("dropout", "none")]
    assert found[0].p_holm == found[0].p == pytest.approx(2 / 2**7)


def test_a_seed_without_a_finite_number_leaves_the_pairs():
    found = contrasts({"none": arm((1.0,) * 7), "dropout": arm((2.0, math.nan, 2.0, math.inf, 2.0, 2.0, 2.0))})
    assert found[0].differences == (1.0,) * 5
