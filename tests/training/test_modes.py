"""In which mode a module trains."""

from __future__ import annotations

import pytest
from lightning import LightningModule
from torch import nn

from dropsearch.core.records import TrialSpec
from dropsearch.datasets.user_data import UserData
from dropsearch.training.adapters.probe import probe
from dropsearch.training.logged_steps import Modes, set_to_train
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.vmap_runner import VmapRunner
from tests.user_modules import assortment, data, inactive

SPEC = TrialSpec("dropout", 0, 3, {"model": 0.3, "drop": 0.5}, lr=1e-3, weight_decay=0.0)


def nested() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.Dropout())


def modes(module: nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in module.named_modules()}


def test_a_module_in_training_mode_keeps_the_modes_of_its_parts():
    module = nested()
    module[0].eval()
    before = modes(module)
    assert set_to_train(module) is module
    assert modes(module) == before


def test_a_module_in_eval_mode_is_switched_as_a_whole():
    assert all(modes(set_to_train(nested().eval())).values())


def test_modes_are_put_back_part_by_part():
    module = nested()
    module[0].eval()
    before, kept = modes(module), Modes(module)
    module.eval()
    kept.put_back()
    assert modes(module) == before


def test_modules_return_to_their_modes_after_an_evaluation():
    module = assortment.Backbone()
    before, together = modes(module), VmapRunner(module)
    for training in (False, True):
        together.set_mode(training=training)
    assert modes(module) == before


@pytest.mark.parametrize(
    ("make", "dropping"), [(assortment.Backbone, {"model", "drop"}), (inactive.Asleep, {"model", "drop"})]
)
def test_the_probe_finds_the_sites_that_drop_in_training(make: type[LightningModule], dropping: set[str]):
    found = probe(make(), UserData(data.Digits(), "Digits").for_trainer(0), TrainerSettings(1, "cpu"))
    assert {site.name for site in found.sites if site.controllable} == dropping
