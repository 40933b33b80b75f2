"""A class is built from the configuration as Hydra's `instantiate` builds it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dropsearch.config.command_line import with_user_targets
from dropsearch.config.compose import compose_overrides
from dropsearch.core.errors import InputError
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.experiment.targets import instantiated
from tests.user_modules.configured import NetConfig

NETS = "tests.user_modules.configured"


def taken(**given: Any) -> dict[str, Any]:
    return given


def context(*words: str) -> ExperimentContext:
    shared = [f"data._target_={NETS}.Points", "engine=sequential", "task=work", "trainer.accelerator=cpu"]
    return build_context(compose_overrides(with_user_targets([*words, *shared])))


def module(*words: str) -> Any:
    modules = context(*words).modules
    return modules.specimen(modules.start)


@pytest.mark.parametrize("mode", [None, "none", "partial", "object", "all"])
@pytest.mark.parametrize("recursive", [None, True, False])
def test_arguments_are_those_that_hydra_gives(mode: str | None, recursive: bool | None):
    given: dict[str, Any] = {
        "net": {"hidden": 3, "sizes": [1, 2]},
        "values": [1, 2.5, None, True, "text", [[]], {}],
        "options": {"betas": [0.9, 0.99], "name": "adam", "more": {"_partial_": True, "a": 1}, "nothing": None},
        "pair": (1, 2),
        "rate": 0.5,
        "part": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1, "_partial_": True},
        "config": {"_target_": f"{NETS}.NetConfig", "hidden": 5},
    }
    given |= {} if mode is None else {"_convert_": mode}
    given |= {} if recursive is None else {"_recursive_": recursive}
    target = f"{__name__}.taken"
    ours = instantiated(target, given, "model")
    hydras = instantiate({"_target_": target, **given})
    assert {name: type(value) for name, value in ours.items()} == {name: type(value) for name, value in hydras.items()}
    assert {name: ours[name] for name in ("values", "options", "pair", "rate")} == {
        name: hydras[name] for name in ("values", "options", "pair", "rate")
    }
    assert ours["values"] is not given["values"]
    assert ours["options"]["betas"] is not given["options"]["betas"]
    assert ours["net"] == hydras["net"]
    assert type(ours["net"]["sizes"]) is type(hydras["net"]["sizes"])


def test_partial_and_positional_arguments_are_hydras():
    given = {"_partial_": True, "_args_": [3], "out_features": 2}
    made = instantiated("torch.nn.Linear", given, "model", {"bias": False})
    assert isinstance(made, partial)
    layer = made()
    assert (layer.in_features, layer.out_features, layer.bias) == (3, 2, None)


def test_what_is_no_part_of_a_configuration_arrives_as_it_is():
    weights, rates = torch.ones(2), {"net.2": 0.1}
    made = instantiated(f"{__name__}.taken", {"a": [1]}, "model", {"weights": weights, "rates": rates})
    assert made["weights"] is weights
    assert made["rates"] is rates


def test_nested_group_is_read_by_attributes():
    built = module(f"model._target_={NETS}.ByGroup", "model.cfg.net.hidden=6")
    assert built.net[0].out_features == 6
    assert OmegaConf.is_dict(built.hparams["cfg"])


@pytest.mark.parametrize("net", ["ByKeywords", "HandingOn"])
def test_keyword_constructors_get_learning_rate_and_arguments(net: str):
    found = context(f"model._target_={NETS}.{net}", "model.hidden=6")
    assert found.modules.specimen(found.modules.start).net[0].out_features == 6
    assert found.modules.routes[0].searched


def test_unknown_argument_of_a_class_that_hands_on_is_refused():
    with pytest.raises(InputError, match=r'must name arguments of HandingOn, got "hiden" \(did you mean "hidden"'):
        context(f"model._target_={NETS}.HandingOn", "model.hiden=6")


def test_dataclass_argument():
    built = module(f"model._target_={NETS}.ByDataclass", f"model.cfg._target_={NETS}.NetConfig", "model.cfg.hidden=6")
    assert built.net[0].out_features == 6
    assert built.net[2].p == NetConfig.rate


def test_dataclass_default():
    assert module(f"model._target_={NETS}.ByDataclass").net[0].out_features == NetConfig.hidden


def test_namespace_argument():
    words = ("model.args._target_=argparse.Namespace", "model.args.hidden=6")
    built = module(f"model._target_={NETS}.ByNamespace", *words)
    assert built.net[0].out_features == 6
    assert built.hparams["hidden"] == 6


@pytest.mark.parametrize(
    ("net", "word"), [("ByPartial", "model.optimizer._partial_=true"), ("BuildsItself", "model._recursive_=false")]
)
def test_optimizer_as_a_partial_or_as_a_group(net: str, word: str):
    optimizer = ("model.optimizer._target_=torch.optim.SGD", "model.optimizer.lr=0.25")
    found = context(f"model._target_={NETS}.{net}", *optimizer, word)
    assert found.modules.routes[0].how == "groups"
    assert found.modules.routes[0].own == 0.25


class Kept:
    """Keeps what it is given."""

    def __init__(self, *places: Any, **given: Any) -> None:
        self.places, self.given = places, given


def texts(value: Any) -> list[str]:
    """Return all texts that a user's class finds in its arguments."""
    if isinstance(value, Kept):
        return texts([*value.places, *value.given.values()])
    if OmegaConf.is_config(value) or isinstance(value, dict | list | tuple):
        own = ("_target_", "_convert_", "_recursive_")
        inner = [value[key] for key in value if key not in own] if hasattr(value, "keys") else list(value)
        return [found for each in inner for found in texts(each)]
    return [value]


@pytest.mark.parametrize("mode", [None, "none", "partial", "object", "all"])
@pytest.mark.parametrize("recursive", [None, False])
@pytest.mark.parametrize("text", ["a ${b:c} d", "\\${x} and \\\\${y}"])
def test_what_looks_like_an_interpolation_is_text_everywhere(text: str, recursive: bool | None, mode: str | None):
    kept = f"{__name__}.Kept"
    given: dict[str, Any] = {
        "_args_": [text, [text]],
        "flat": text,
        "group": {"t": text, "below": {"t": text}, "list": [text, {"t": text}]},
        "made": {"_target_": kept, "_args_": [text], "t": text, "group": {"t": text}},
        "inside": {"made": {"_target_": kept, "t": text, "_convert_": "all", "group": [{"t": text}]}},
        "part": {"_target_": kept, "_recursive_": False, "group": {"t": text}},
    }
    given |= {} if mode is None else {"_convert_": mode}
    given |= {} if recursive is None else {"_recursive_": recursive}
    found = texts(instantiated(kept, given, "model"))
    assert set(found) == {text}
    assert len(found) >= 13
