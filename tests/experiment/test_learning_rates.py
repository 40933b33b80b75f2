"""The module's own learning rate: searched, tried first, and named where the range leaves it out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import dropsearch
from dropsearch.api.arguments import bounds
from dropsearch.config.command_line import with_user_targets
from dropsearch.config.compose import compose_overrides, register_schemas, typed
from dropsearch.config.messages import conf_folder
from dropsearch.core.records import ARMS
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.experiment.params import LearningRates
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
        ((1e-3, 1e-2), 0.1, (1e-3, 1e-2), "space.lr.high=0.1 includes it"),
        ((1e-3, 1e-3), 1e-4, (1e-3, 1e-3), "space.lr.low=0.0001 includes it"),
    ],
)
def test_range_that_leaves_out_the_own_value(
    given: tuple[float, float], own: float, searched: tuple[float, float], said: str
):
    rates = LearningRates(given, own, is_default=given == DEFAULT)
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
    assert any("does not contain the module's learning rate" in note for note in found.modules.notes) == (own > 3e-2)


@pytest.mark.parametrize(
    ("words", "high"),
    [
        ((), 0.1),
        (("space=shared",), 0.1),
        (("space.weight_decay.low=1e-5",), 0.1),
        (("space.lr.low=3e-4", "space.lr.high=3e-2"), 3e-2),
        (("space.lr.high=0.03",), 3e-2),
        (("space.lr={low:3e-4,high:3e-2}",), 3e-2),
    ],
)
def test_a_range_that_is_given_stays_though_it_is_the_default(words: tuple[str, ...], high: float):
    assert context(f"model._target_={__name__}.Fast", *words).modules.learning_rates.searched == (3e-4, high)


@pytest.mark.parametrize(
    ("text", "is_given"), [("space: {lr: {low: 3e-4}}", True), ("space: {zero_share: 0.1}", False)]
)
@pytest.mark.parametrize("begins_with", ["config", "schema", ""])
def test_a_range_that_a_file_gives_is_known(text: str, is_given: bool, begins_with: str):
    register_schemas()
    targets = {"model": {"_target_": f"{NETS}.Small"}, "data": {"_target_": f"{NETS}.Points"}}
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        base = compose(begins_with) if begins_with else OmegaConf.create()
    raw: Any = OmegaConf.merge(base, {} if begins_with == "config" else targets, OmegaConf.create(text))
    assert typed(raw).space.lr.is_given is is_given


def test_a_range_that_is_an_argument_is_given():
    assert bounds("lr", DEFAULT).is_given


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
        confirm_top_k=1,
        engine=engine,
        overrides=["evidence=off", "engine.processes=1", *(["engine.width=2"] if engine == "vectorized" else [])],
        output_dir=tmp_path,
        tracking="none",
        accelerator="cpu",
    )
    assert "does not contain the module's learning rate 0.1" in " ".join(capfd.readouterr().out.split())
    trials = result.trials_dataframe()
    assert set(trials[trials["number"] == 0]["lr"]) == {0.1}
