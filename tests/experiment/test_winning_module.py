"""The trained winner is rebuilt as its trial was built: arguments as Hydra gives them, layers of hooks."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dropsearch.config.command_line import with_user_targets
from dropsearch.config.compose import compose_overrides
from dropsearch.config.plain import plain
from dropsearch.config.schema import Config, arguments
from dropsearch.core.errors import InputError
from dropsearch.core.override_text import override
from dropsearch.core.records import TrialSpec
from dropsearch.experiment.context import build_context
from dropsearch.experiment.provenance import shown_config
from dropsearch.experiment.targets import imported, instantiated
from dropsearch.experiment.user_module import PROBED
from dropsearch.experiment.winning_module import built_by, load_weights, load_winner, weights_of, with_layers
from dropsearch.training.adapters.checkpoints import save_checkpoint
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine, quiet_lightning
from dropsearch.training.trainers import make_trainer
from tests.training.conftest import Queue
from tests.user_modules.constructed import (
    AsksData,
    ByGroup,
    ByNamespace,
    Fourier,
    Held,
    InConfigureModel,
    InSetup,
    Listed,
    Seeded,
    Weighted,
)

NETS = "tests.user_modules.constructed"
SPEC = TrialSpec("dropout", 0, 0, {"net.2": 0.25}, lr=0.02, weight_decay=0.0)
SGD = {"_target_": "torch.optim.SGD", "_partial_": True, "momentum": 0.5}
NET = {"_target_": "tests.user_modules.constructed.Hidden", "hidden": 6}


def composed(*words: str) -> Config:
    shared = ["engine=sequential", "task=work", "trainer.accelerator=cpu"]
    return compose_overrides(with_user_targets([f"data._target_={NETS}.Known", *words, *shared]))


def saved(module: Any, folder: Path) -> Path:
    with quiet_lightning():
        trainer = make_trainer(module, TrainerSettings(1, "cpu"), [])
        trainer.strategy.connect(module)
        save_checkpoint(trainer, folder / "it's.ckpt")
    return folder / "it's.ckpt"


CASES = {
    "group": ("ByGroup", "model.cfg.net.hidden=6"),
    "group with text": ("ByGroup", override("model.cfg", {"net": {"hidden": 6}, "title": "a ${b} \\${c:d}"})),
    "group without recursion": ("ByGroup", "model.cfg.net.hidden=6", "model._convert_=none", "model._recursive_=false"),
    "list of groups": ("Listed", "model.blocks=[{hidden: 2},{hidden: 3}]"),
    "dataclass": ("ByDataclass", "model.cfg._target_=tests.user_modules.configured.NetConfig", "model.cfg.hidden=6"),
    "namespace": ("ByNamespace", "model.args._target_=argparse.Namespace", "model.args.hidden=6"),
    "partial": ("ByPartial", "model.optimizer={_target_: torch.optim.SGD, _partial_: true, lr: 0.25}"),
    "built by itself": ("BuildsItself", "model.optimizer={_target_: torch.optim.SGD}", "model._recursive_=false"),
    "keywords": ("HandingOn", "model.hidden=6"),
    "setup": ("InSetup",),
    "configure_model": ("InConfigureModel",),
    "class in a class": ("Outer.Net", "model.hidden=3"),
    "class method": ("Outer.net", "model.width=3"),
    "function": ("made", "model.width=3"),
    "by place": ("Small", "model._args_=[5]"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_module_is_loaded_as_it_was_built(name: str, tmp_path: Path) -> None:
    target, *words = CASES[name]
    config = composed(f"model._target_={NETS}.{target}", *words)
    module = instantiated(config.model._target_, arguments(config.model), "model")
    for build in (partial(module.setup, "fit"), module.configure_model):
        build()
    net = load_winner(plain(config), SPEC, saved(module, tmp_path))
    assert type(net) is type(module)
    assert not net.training
    assert net.net[2].p == 0.25
    for key, value in module.state_dict().items():
        assert torch.equal(net.state_dict()[key], value)
    if "cfg" in module.hparams:
        assert type(net.hparams["cfg"]) is type(module.hparams["cfg"])
        assert net.hparams["cfg"] == module.hparams["cfg"]


def test_arguments_of_the_data_are_given(tmp_path: Path) -> None:
    config = composed(f"model._target_={NETS}.Counting")
    modules = build_context(config).modules
    module = modules.whole(PROBED)
    path, shown = saved(module, tmp_path), shown_config(config, modules.data_arguments)
    net = load_winner(shown, dataclasses.replace(PROBED, rates=SPEC.rates), path)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in module.state_dict().items())


ALIKE = ("~arm_args.batchnorm", "~arm_args.both")
BUILT_IN = {
    "mlp": ("model=mlp", "model.hidden=[8]", "optimizer=sgd", "optimizer.momentum=0.5"),
    "cnn": ("model=cnn",),
    "rnn": ("model=rnn",),
    "transformer": ("model=transformer",),
    "without BatchNorm": ("model=mlp", "model.norm=batch", "batchnorm.replace=identity", "arms=[none,dropout]", *ALIKE),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_model_is_loaded_as_it_was_built(name: str, tmp_path: Path) -> None:
    config = compose_overrides([*BUILT_IN[name], "data=digits", "engine=sequential", "trainer.accelerator=cpu"])
    modules = build_context(config).modules
    rates = {site.name: 0.25 for site in modules.sites(modules.start)}
    spec = dataclasses.replace(PROBED, arm="dropout", rates=rates, lr=0.02, weight_decay=0.0)
    module = modules.whole(spec)
    shown = shown_config(config, modules.data_arguments)
    net = load_winner(shown, spec, saved(module, tmp_path))
    assert not net.training
    assert net.hparams == module.hparams
    assert set(net.net.rates.values()) == {0.25}
    assert all(torch.equal(net.state_dict()[key], value) for key, value in module.state_dict().items())
    given = load_winner(shown, spec, tmp_path / "it's.ckpt", imported(config.model._target_, "model._target_"))
    assert given.hparams == module.hparams
    of_data = {key: shown["model"][key] for key in ("input_shape", "layout", "classes")}
    without = {**shown, "model": {key: value for key, value in shown["model"].items() if key not in of_data}}
    for less in (without, {key: value for key, value in shown.items() if key != "optimizer"}, {}):
        with pytest.raises(InputError, match=r"^load_best needs .*: pass make_module=\.\.\.$"):
            load_winner(less, spec, tmp_path / "it's.ckpt")
    if name == "cnn":
        make = partial(imported(config.model._target_, ""), **of_data)
        assert load_winner({}, spec, tmp_path / "it's.ckpt", make).hparams["lr"] == 0.02


@pytest.mark.parametrize("given", [{}, {"seed": 3}])
def test_a_seed_is_that_of_the_training(given: dict[str, int], tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, seed=11)
    words = [f"model.{name}={value}" for name, value in given.items()]
    shown = plain(composed(f"model._target_={NETS}.Seeded", *words))
    path = saved(Seeded(given.get("seed", 11), 11), tmp_path)
    for make in (None, Seeded):
        net = load_winner(shown, spec, path, make)
        assert net.seeds == (given.get("seed", 11), 11)


@pytest.mark.parametrize("make", [None, Fourier])
def test_what_no_checkpoint_contains_is_that_of_the_training(make: Any, tmp_path: Path) -> None:
    config, spec = composed(f"model._target_={NETS}.Fourier"), dataclasses.replace(SPEC, seed=11)
    context = build_context(config)
    path = tmp_path / "a.ckpt"
    feed = Queue([spec])
    SequentialEngine(context.make_module, context.source, context.settings, lambda _: path).run(feed)
    result = feed.results[spec.number]
    assert result.best is not None
    torch.manual_seed(5)
    net = load_winner(shown_config(config), spec, path, make)
    assert torch.equal(torch.randn(2), torch.randn(2, generator=torch.Generator().manual_seed(5)))
    inputs, labels = next(iter(context.source.val_dataloader()))
    assert torch.nn.functional.cross_entropy(net(inputs), labels).item() == pytest.approx(result.best.val_loss, 1e-6)


def test_a_tensor_of_the_data_asks_for_a_function(tmp_path: Path) -> None:
    config = composed(f"model._target_={NETS}.Weighted", f"data._target_={NETS}.Weighing")
    modules = build_context(config).modules
    shown, path = shown_config(config, modules.data_arguments), saved(modules.whole(PROBED), tmp_path)
    with pytest.raises(InputError, match=r"^load_best needs weight of .*, which .*: pass make_module=\.\.\.$"):
        load_winner(shown, PROBED, path)
    net = load_winner(shown, PROBED, path, lambda lr: Weighted(torch.ones(2), lr))
    assert not net.training


def test_a_secret_is_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed(f"model._target_={NETS}.HandingOn", "model.hidden=6", "+model.api_key=abc")
    shown = plain(config)
    shown["model"]["api_key"] = "***"
    with pytest.raises(InputError, match="set the environment variable DROPSEARCH_MODEL_API_KEY"):
        load_winner(shown, SPEC, tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("AsksData", "its setup and configure_model fail without a Trainer"),
        ("OnlyOnce", "cannot be built: RuntimeError: no more"),
    ],
)
def test_what_user_code_raises_is_told(target: str, said: str, tmp_path: Path) -> None:
    module = InSetup()
    module.setup("fit")
    name = f"{NETS}.{target}" if target == "AsksData" else f"{__name__}.{target}"
    with pytest.raises(InputError, match=re.escape(said)):
        load_winner(plain(composed(f"model._target_={name}")), SPEC, saved(module, tmp_path))


class OnlyOnce(InSetup):
    """Cannot be built where no run prepares it."""

    def __init__(self, lr: float = 1e-2) -> None:
        raise RuntimeError("no more")


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
    module = built_by(kind, SPEC, {"model": {"_target_": "mine.Net", "name": "Net", **given}, "arm_args": {}})
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
