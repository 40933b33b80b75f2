"""The trained winner is rebuilt as its trial was built: arguments as Hydra gives them, layers of hooks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dropsearch.api.winning_module import built, load_weights, weights_of, with_layers
from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialSpec
from tests.user_modules.constructed import AsksData, ByGroup, ByNamespace, Held, InConfigureModel, InSetup, Listed

SPEC = TrialSpec("dropout", 0, 0, {}, lr=0.02, weight_decay=0.0)
SGD = {"_target_": "torch.optim.SGD", "_partial_": True, "momentum": 0.5}
NET = {"_target_": "tests.user_modules.constructed.Hidden", "hidden": 6}


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (ByGroup, {"cfg": {"net": {"hidden": 6}}}),
        (ByGroup, {"cfg": {"net": {"hidden": 6}}, "_recursive_": False}),
        (ByNamespace, {"args": {"_target_": "argparse.Namespace", "hidden": 6}}),
        (Listed, {"blocks": [{"hidden": 2}, {"hidden": 3}]}),
        (Held, {"net": NET, "optimizer": SGD, "title": "it's ${mine}", "tags": ["a b"]}),
    ],
)
def test_a_module_is_built_from_the_configuration_of_a_run(kind: Any, given: dict[str, Any]) -> None:
    module = built(kind, SPEC, {"model": {"_target_": "mine.Net", "name": "Net", **given}, "arm_args": {}})
    assert module.hparams["lr"] == 0.02
    assert len(module.state_dict()) == 4


@pytest.mark.parametrize("kind", [InSetup, InConfigureModel])
def test_layers_of_hooks_are_built(kind: Any) -> None:
    trained = kind()
    for build in (lambda: trained.setup("fit"), trained.configure_model):
        build()
    assert len(trained.state_dict()) == 6
    loaded = with_layers(kind(), trained.state_dict())
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded.more.weight, trained.more.weight)


def test_hooks_that_need_a_trainer_are_named() -> None:
    with pytest.raises(InputError, match=r"load_best needs all layers of AsksData, .*: pass make_module="):
        with_layers(AsksData(), {})


def test_no_hook_runs_where_all_layers_are_there() -> None:
    module = AsksData()
    assert with_layers(module, module.state_dict()) is module


def test_weights_that_do_not_fit_are_refused(tmp_path: Any) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / "a.ckpt")
    weights = weights_of(tmp_path / "a.ckpt", "InSetup")
    with pytest.raises(InputError, match="must contain weights that fit InSetup"):
        load_weights(InSetup(), weights, tmp_path / "a.ckpt")
