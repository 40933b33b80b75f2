"""What the searches of a run show, put together from its studies."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from dropsearch.core.records import Budget, Monitor, Summary
from dropsearch.experiment.landscape import _floor, _shown
from dropsearch.experiment.tasks.search import searched
from tests.experiment.conftest import MEASURED, composed
from tests.stats.simulations import scored

SMALL = (*MEASURED, "arms=[none,dropout]", "pruner=none", "study.n_trials=12", "confirm.top_k=1")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """A run whose trials are drawn at random."""
    return searched(composed(*SMALL, "sampler=random", f"output_dir={tmp_path_factory.mktemp('drawn')}"))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """A run whose sampler learns, and whose searches are too short for curves, done twice."""
    few = ("study.n_trials=5", "study.repeats=2")
    return searched(composed(*SMALL, *few, f"output_dir={tmp_path_factory.mktemp('learnt')}"))


def test_each_site_of_an_arm_that_searched_rates_has_a_curve(drawn: Summary):
    assert drawn.evidence
    assert set(drawn.evidence.responses) == {"dropout"}
    winner = drawn.arms["dropout"].winner
    assert winner
    for site, curve in zip(drawn.sites, drawn.evidence.responses["dropout"], strict=True):
        assert curve.site == site.name
        assert curve.found == winner.results[0].spec.rates[site.name]
        assert curve.typical == drawn.arms["dropout"].typical[site.name]


def test_importances_are_shares(drawn: Summary):
    assert drawn.evidence
    shares = [curve.importance for curve in drawn.evidence.responses["dropout"]]
    assert sum(shares) == pytest.approx(1)


def test_the_budget_of_a_random_search_rests_on_the_trials_that_were_drawn(drawn: Summary):
    assert drawn.evidence
    # Trial 0 is the typical point, trial 1 of an arm that searches rates has none.
    for arm, count in (("none", 11), ("dropout", 10)):
        budget = drawn.evidence.budgets[arm]
        assert (budget.source, budget.trials[-1]) == ("trials", count)
        losses = [trial.best.objective for trial in drawn.arms[arm].trials[-count:] if trial.best]
        assert budget.expected[-1] == pytest.approx(min(losses))


def test_where_the_sampler_learns_the_budget_rests_on_repetitions(learnt: Summary):
    assert learnt.evidence
    assert {budget.source for budget in learnt.evidence.budgets.values()} == {"repeats"}


def test_too_few_trials_are_said_to_be_too_few(learnt: Summary):
    assert learnt.evidence
    assert learnt.evidence.responses == {}
    assert any("dropout is not known: " in note for note in learnt.evidence.notes)


def test_one_search_whose_sampler_learns_has_no_budget(tmp_path: Path):
    summary = searched(composed(*SMALL, "study.n_trials=5", "arms=[none]", f"output_dir={tmp_path}"))
    assert summary.evidence
    assert summary.evidence.budgets == {}


@pytest.mark.parametrize(
    ("monitor", "objectives", "floor"),
    [
        (Monitor(), [0.5, 0.2], 0.0),
        (Monitor("val_mse"), [3.0, 0.2], 0.0),
        (Monitor("val_nll"), [3.0, -0.2], -math.inf),
        (Monitor("val_acc", "max"), [-0.9, -0.5], -1.0),
        (Monitor("val_psnr", "max"), [-31.0, -28.0], -math.inf),
    ],
)
def test_what_no_score_can_be_below(monitor: Monitor, objectives: list[float], floor: float):
    assert _floor(monitor, scored(objectives)) == floor


def test_a_curve_of_what_is_better_when_more_is_turned_round():
    found = Budget((1, 2), (-0.8, -0.9), (-1.0, -1.0), (-0.7, -0.85), "trials")
    shown = _shown(found, Monitor("val_acc", "max"))
    assert shown == replace(found, expected=(0.8, 0.9), low=(0.7, 0.85), high=(1.0, 1.0))
