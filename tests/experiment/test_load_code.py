"""The printed line of Python loads a module as a trial built it, with its weights and rates."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from dropsearch.config.compose import compose_overrides
from dropsearch.config.schema import Config, arguments
from dropsearch.config.user_targets import with_user_targets
from dropsearch.core.override_text import override
from dropsearch.experiment.context import build_context
from dropsearch.experiment.load_code import load_code
from dropsearch.experiment.targets import instantiated
from dropsearch.experiment.user_module import PROBED
from dropsearch.training.adapters.checkpoints import save_checkpoint
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import quiet_lightning
from dropsearch.training.trainers import make_trainer
from tests.user_modules.constructed import InSetup

NETS = "tests.user_modules.constructed"


def composed(*words: str) -> Config:
    shared = [f"data._target_={NETS}.Known", "engine=sequential", "task=work", "trainer.accelerator=cpu"]
    return compose_overrides(with_user_targets([*words, *shared]))


def saved(module: Any, folder: Path) -> Path:
    with quiet_lightning():
        trainer = make_trainer(module, TrainerSettings(1, "cpu"), [])
        trainer.strategy.connect(module)
        save_checkpoint(trainer, folder / "it's.ckpt")
    return folder / "it's.ckpt"


def line(config: Config, path: Path, given: Mapping[str, Any] = MappingProxyType({})) -> str:
    return load_code(config, "dropout", str(path), given, {"net.2": 0.25}, path)[0]


def loaded(code: str) -> Any:
    names: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()):
        exec(code, names)
    return names["net"]


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


def check(code: str, module: Any) -> None:
    assert code
    assert "\n" not in code
    net = loaded(code)
    assert type(net) is type(module)
    assert net.net[2].p == 0.25
    for key, value in module.state_dict().items():
        assert torch.equal(net.state_dict()[key], value)
    if "cfg" in module.hparams:
        assert type(net.hparams["cfg"]) is type(module.hparams["cfg"])
        assert net.hparams["cfg"] == module.hparams["cfg"]


@pytest.mark.parametrize("name", CASES)
def test_a_module_is_loaded_as_it_was_built(name: str, tmp_path: Path) -> None:
    target, *words = CASES[name]
    config = composed(f"model._target_={NETS}.{target}", *words)
    module = instantiated(config.model._target_, arguments(config.model), "model")
    for build in (partial(module.setup, "fit"), module.configure_model):
        build()
    check(line(config, saved(module, tmp_path)), module)


def test_arguments_of_the_data_are_given(tmp_path: Path) -> None:
    config = composed(f"model._target_={NETS}.Counting")
    modules = build_context(config).modules
    module = modules.whole(PROBED)
    check(line(config, saved(module, tmp_path), modules.constructor_arguments(PROBED)), module)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("AsksData", r"RuntimeError: AsksData is not attached to a `Trainer`. \(constructed.py:\d+ in setup\)"),
        ("OnlyOnce", r"RuntimeError: no more \(test_load_code.py:\d+ in __init__\)"),
    ],
)
def test_what_user_code_raises_is_told_instead_of_a_line(target: str, said: str, tmp_path: Path) -> None:
    module = InSetup()
    module.setup("fit")
    path = saved(module, tmp_path)
    name = f"{NETS}.{target}" if target == "AsksData" else f"{__name__}.{target}"
    code, failure = load_code(composed(f"model._target_={name}"), "dropout", str(path), {}, {}, path)
    assert not code
    assert re.fullmatch(said, failure), failure


class OnlyOnce(InSetup):
    """Cannot be built where no run prepares it."""

    def __init__(self, lr: float = 1e-2) -> None:
        raise RuntimeError("no more")
