"""The module's own learning rate: searched, tried first, and named where the range leaves it out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import dropsearch
from dropsearch.config.compose import compose_overrides
from dropsearch.config.user_targets import with_user_targets
from dropsearch.core.records import ARMS
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.experiment.learning_rates import LearningRates
from dropsearch.study.search_space import Space
from tests.user_modules.configured import Points, Small

NETS = "tests.user_modules.configured"
DEFAULT = (3e-4, 3e-2)


class Fast(Small):
    def __init__(self) -> None:
        super().__init__(lr=0.1)


def context(*words: str) -> ExperimentContext:
    shared = [f"data._target_={NETS}.Points", "engine=sequential", "task=work", "trainer.accelerator=cpu"]
    return build_context(compose_overrides(with_user_targets([*words, *shared])))


@pytest.mark.parametrize(
    ("given", "own", "searched", "said"),
    [
        (DEFAULT, 1e-3, DEFAULT, ""),
        (DEFAULT, math.nan, DEFAULT, ""),
        (DEFAULT, 0.1, (3e-4, 0.1), "it is searched from 0.0003 to 0.1, and its own is the first trial"),
        (DEFAULT, 1e-5, (1e-5, 3e-2), "it is searched from 1e-05 to 0.03"),
        ((1e-3, 1e-2), 0.1, (1e-3, 1e-2), "space.lr.high=0.1 takes it in"),
        ((1e-3, 1e-3), 1e-4, (1e-3, 1e-3), "space.lr.low=0.0001 takes it in"),
    ],
)
def test_range_that_leaves_out_the_own_value(
    given: tuple[float, float], own: float, searched: tuple[float, float], said: str
):
    rates = LearningRates(given, own)
    assert rates.searched == searched
    assert said in rates.note
    assert bool(rates.note) == bool(said)


@pytest.mark.parametrize(
    ("words", "own"),
    [
        ((f"model._target_={__name__}.Fast",), 0.1),
        ((f"model._target_={NETS}.Small",), 1e-2),
        ((f"model._target_={NETS}.HandingOn", "model.hidden=4"), 1e-2),
    ],
)
def test_first_points_have_the_own_value(words: tuple[str, ...], own: float):
    found = context(*words)
    points = Space(found.space, ARMS["dropout"], found.sites, {site.name: 0.4 for site in found.sites}).first_points
    assert [point["lr"] for point in points] == [own, own]
    assert any("leaves out the module's own learning rate" in note for note in found.modules.notes) == (own > 3e-2)


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_first_trial_trains_with_it(engine: str, tmp_path: Any, capfd: pytest.CaptureFixture[str]):
    torch.set_num_threads(1)
    result = dropsearch.search(
        Fast,
        Points(),
        n_trials=2,
        max_epochs=1,
        arms=["none", "dropout"],
        confirm_seeds=1,
        engine=engine,
        output_dir=tmp_path,
        tracking="none",
        accelerator="cpu",
    )
    assert "leaves out the module's own learning rate 0.1" in " ".join(capfd.readouterr().out.split())
    trials = result.trials_dataframe()
    assert set(trials[trials["number"] == 0]["lr"]) == {0.1}
