from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropsearch.analysis import response_curves
from dropsearch.analysis.response_curves import SmoothEffect, responses
from dropsearch.core.records import EpochMetrics
from tests.stats.simulations import HIGH, SURFACES, drawn_rates, response_coverage, search_of

SITES = ("site0", "site1", "site2")


def search(trials=30, noise=0.02, seed=1, surface=lambda rates: (rates[:, 0] - 0.3) ** 2 + 0.5 * rates[:, 1]):
    generator = np.random.default_rng(seed)
    return search_of(surface, drawn_rates(generator, trials, 3), noise, generator)


def curves(trials, sites=SITES):
    return responses(trials, sites, {}, {}, {}, 0.0, HIGH)


def with_scores(trials, scores):
    points = [EpochMetrics(0, score, score, score) for score in scores]
    return [replace(trial, curve=(point,)) for trial, point in zip(trials, points, strict=True)]


def test_a_curve_spans_the_range_and_carries_what_is_known_of_its_site():
    known = ({"site0": 0.7}, {"site0": 0.2}, {"site0": 0.5})
    first, second = responses(search(), SITES[:2], *known, 0.0, HIGH)
    assert (first.site, first.importance, first.found, first.typical) == ("site0", 0.7, 0.2, 0.5)
    assert math.isnan(second.importance)
    assert (first.rates[0], first.rates[-1]) == (0.0, HIGH)
    assert all(low < mid < high for low, mid, high in zip(first.low, first.expected, first.high, strict=True))


def test_the_least_expected_score_is_where_the_surface_has_it():
    curve = curves(search(trials=100))[0]
    assert curve.rates[int(np.argmin(curve.expected))] == pytest.approx(0.3, abs=0.1)


def test_learning_rate_and_weight_decay_are_taken_out():
    trials = search(noise=0.01, surface=lambda rates: 0.3 * rates[:, 0])
    without = [replace(trial, spec=replace(trial.spec, lr=1e-3, weight_decay=0.0)) for trial in trials]
    # A rate of the middle, where the level's uncertainty is all that is left.
    width, wider = (curve.high[0] - curve.low[0] for curve in (curves(trials)[0], curves(without)[0]))
    assert width < 0.8 * wider


def test_one_trial_that_diverged_does_not_ruin_the_curve():
    trials = search()
    scores = [trial.best.objective for trial in trials]
    worst = int(np.argmax(scores))
    far, farther = (with_scores(trials, [*scores[:worst], value, *scores[worst + 1 :]]) for value in (10.0, 1e6))
    assert curves(far) == curves(farther)
    assert max(curves(far)[0].expected) < 2


def test_only_complete_trials_count():
    trials = search()
    unfinished = [replace(trial, state="PRUNED") for trial in search(seed=2)]
    assert curves([*trials, *unfinished]) == curves(trials)


def test_of_too_few_trials_no_curve_is_drawn():
    assert curves(search(trials=9)) == ()


def test_a_site_whose_rate_was_never_changed_has_no_curve():
    fixed = [replace(t, spec=replace(t.spec, rates={**t.spec.rates, "site1": 0.4})) for t in search()]
    assert [curve.site for curve in curves(fixed)] == ["site0", "site2"]


def test_a_zero_below_the_range_is_drawn_too():
    curve = responses(search(), ("site0",), {}, {}, {}, 0.2, HIGH)[0]
    assert curve.rates[0] == 0.0


def test_scores_that_are_all_alike_give_a_flat_curve():
    trials = search()
    curve = curves(with_scores(trials, [0.5] * len(trials)))[0]
    assert curve.expected == pytest.approx([0.5] * len(curve.rates))


@settings(max_examples=20)
@given(st.floats(0.1, 50), st.floats(-5, 5), st.integers(0, 100))
def test_another_unit_of_the_score_gives_the_same_curve_in_that_unit(scale, shift, seed):
    trials = search(seed=seed)
    moved = with_scores(trials, [scale * trial.best.objective + shift for trial in trials])
    here, there = curves(trials, ("site0",))[0], curves(moved, ("site0",))[0]
    for line in ("expected", "low", "high"):
        wanted = [scale * value + shift for value in getattr(here, line)]
        assert getattr(there, line) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_for_one_prior_the_curve_is_that_of_a_gaussian_process(monkeypatch):
    monkeypatch.setattr(response_curves, "STRENGTHS", (1.5,))
    generator = np.random.default_rng(4)
    one, other, scores = generator.uniform(-1, 1, (3, 25))
    points = np.linspace(-1, 1, 7)
    expected, _ = SmoothEffect.of(one, [other], scores).at(points)

    terms = [response_curves._polynomials(column) for column in (one, other)]
    centred = [term - term.mean(axis=0) for term in terms]
    kernel = 1.5**2 * sum(term @ term.T for term in centred) + np.eye(25)
    across = 1.5**2 * (response_curves._polynomials(points) - terms[0].mean(axis=0)) @ centred[0].T
    assert expected == pytest.approx(scores.mean() + across @ np.linalg.solve(kernel, scores - scores.mean()))


@pytest.mark.slow
@pytest.mark.parametrize("sites", [3, 10])
@pytest.mark.parametrize("name", SURFACES)
def test_the_band_covers_about_what_it_says(name, sites):
    covered, _ = response_coverage(name, 30, sites, 0.1, 60, np.random.default_rng(20261122))
    assert covered >= 0.88
