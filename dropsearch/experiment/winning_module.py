"""The trained model of an arm, rebuilt from the configuration of its run and loaded from its checkpoint."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dropsearch.config.plain import secret_variable
from dropsearch.config.schema import REFERENCE, SitesConfig
from dropsearch.core.errors import InputError
from dropsearch.core.global_state import reseeding_follows, seeded
from dropsearch.core.printable import MASK
from dropsearch.core.records import ARMS, TrialSpec
from dropsearch.core.user_errors import described
from dropsearch.experiment.module_builder import apply, below, where_of
from dropsearch.experiment.targets import imported, instantiated, made_arguments, required, takes_rates
from dropsearch.training.adapters.hyperparameters import accepted, arguments_of, routes
from dropsearch.training.adapters.layers import builds_in_hooks
from dropsearch.training.adapters.luck import seed_arguments


def load_winner(
    config: Mapping[str, Any],
    spec: TrialSpec,
    path: Path,
    make_module: Callable[..., Any] | None = None,
    insert: Any = None,
) -> Any:
    """Return the trained model of a trial, on the CPU, in evaluation mode, with the rates of the trial.

    Args:
        config: The configuration of the run, as plain containers with masked secrets.
        spec: The trial.
        path: Its checkpoint, which is read with ``weights_only=True``.
        make_module: The class or function that builds the module; None for the one that `config` names.
        insert: Where the search inserted dropout, as for `insert_dropout`.

    Raises:
        InputError: The module cannot be built, or the checkpoint is missing or has other weights.
    """
    if make_module is None and "." in config.get("model", {}).get("_target_", ""):
        imported(config["model"]["_target_"], "model._target_")  # outside of the seed, as before a search
    # What a constructor draws and no checkpoint contains, such as a buffer that is not persistent, is as in training.
    with _random_numbers_of(spec.seed):
        module = built_by(make_module, spec, config, insert) if make_module else _built(spec, config, insert)
    weights = weights_of(path, type(module).__name__)
    with _random_numbers_of(spec.seed):
        module = with_layers(module, weights)
    apply_rates(module, config, spec.arm, spec.rates, insert)
    load_weights(module, weights, path)
    return module.eval()


@contextmanager
def _random_numbers_of(seed: int) -> Iterator[None]:
    """Draw random numbers as the module of a trial does; leave those of the caller as they were."""
    with seeded(seed), reseeding_follows(seed):
        yield


def apply_rates(
    module: Any, config: Mapping[str, Any], arm: str | None, rates: Mapping[str, float], insert: Any
) -> None:
    """Change a module as the search did for an arm: without BatchNorm, with inserted dropout, at these rates."""
    kept = arm is None or not config.get("batchnorm", {}).get("replace") or ARMS[arm].batchnorm
    apply(module, None if insert is None else where_of(SitesConfig(insert=insert)), rates, batchnorm=kept)


def built_by(make_module: Callable[..., Any], spec: TrialSpec, config: Mapping[str, Any], insert: Any = None) -> Any:
    """Return a new module of a class or function, with those constructor arguments of a trial that it takes."""
    names, open_ended = accepted(make_module)
    if open_ended and not inspect.isclass(make_module):
        names |= {"lr", "weight_decay"}
    known = made_arguments(_with_optimizer(config.get("model", {}), spec, config))
    configured = {name: value for name, value in known.items() if name in names and name != "name"}
    return make_module(**{**configured, **_of_trial(spec, config, names), **_rates(make_module, spec, insert)})


def _built(spec: TrialSpec, config: Mapping[str, Any], insert: Any) -> Any:
    """Return a new module of the class or function that the configuration names, built as in its trial."""
    known = _with_optimizer(config.get("model", {}), spec, config)
    given = {name: _revealed(value, f"model.{name}") for name, value in known.items()}
    target, name = given.pop("_target_", ""), given.pop("name", "")
    if "." not in target:
        raise InputError("load_best needs the class or function that the search was given: pass make_module=...")
    made = imported(target, "model._target_")
    names = accepted(made)[0]
    if name and "name" in names and name != target.rpartition(".")[2]:
        given["name"] = name
    given, rates = {**given, **_of_trial(spec, config, names)}, _rates(made, spec, insert)
    if "_args_" not in given:
        for missing in required(made):
            if missing not in {**given, **rates}:
                raise _unknown(f"{missing} of {target}")
    return instantiated(target, given, "model", rates)


def _unknown(what: str) -> InputError:
    return InputError(f"load_best needs {what}, which the results do not contain: pass make_module=...")


def _with_optimizer(model: Mapping[str, Any], spec: TrialSpec, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a model with the group `optimizer` of a trial in place of references to it."""
    if REFERENCE not in model.values():
        return dict(model)
    if "optimizer" not in config:
        raise _unknown("the group optimizer")
    group = {**config["optimizer"], **below("optimizer.", spec.hyperparameters)}
    return {name: group if value == REFERENCE else value for name, value in model.items()}


def _rates(made: Any, spec: TrialSpec, insert: Any) -> dict[str, Any]:
    """Return the argument that takes the rates of a trial, if there is one."""
    name = "" if insert is not None else takes_rates(made)
    return {name: dict(spec.rates)} if name else {}


def _of_trial(spec: TrialSpec, config: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """Return the arguments that the seed, the arm and the searched values of a trial set."""
    seeds, searched = seed_arguments(names, config.get("model", {}), spec.seed), below("model.", spec.hyperparameters)
    of_arm = config.get("arm_args", {}).get(spec.arm, {})
    return {**seeds, **of_arm, **searched, **arguments_of(spec, routes(names, []))}


def _revealed(value: Any, key: str) -> Any:
    """Return a value with passwords and tokens, which are masked, from variables of the environment."""
    if isinstance(value, Mapping):
        return {name: _revealed(each, f"{key}.{name}") for name, each in value.items()}
    if isinstance(value, list):
        return [_revealed(each, f"{key}.{index}") for index, each in enumerate(value)]
    if not isinstance(value, str) or MASK not in value:
        return value
    variable = secret_variable(key)
    if variable not in os.environ:
        raise InputError(f"load_best needs {key}, which is stored nowhere: set the environment variable {variable}")
    return os.environ[variable]


def weights_of(path: Path, name: str) -> Mapping[str, Any]:
    """Return the weights in a checkpoint of a class; the file is read with ``weights_only=True``."""
    if not path.is_file():
        raise InputError(f"the checkpoint {path} must exist, but there is no such file: run the search again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # zip, pickle and key errors
        raise _unfit(path, name, error) from error


def with_layers(module: Any, weights: Mapping[str, Any]) -> Any:
    """Return a module after its hooks have built the layers of `weights` that its constructor leaves out."""
    if module.state_dict().keys() == weights.keys() or not builds_in_hooks(module):
        return module
    try:
        module.setup("fit")
        module.configure_model()
    except Exception as error:  # user code, which may ask for its Trainer
        raise InputError(
            f"load_best needs all layers of {type(module).__name__}, and its setup and configure_model fail without a "
            f"Trainer ({described(error)}): pass make_module=..., a function that builds the layers"
        ) from error
    return module


def load_weights(module: Any, weights: Mapping[str, Any], path: Path) -> None:
    """Load the weights that a checkpoint contains into a module."""
    try:
        module.load_state_dict(weights)
    except Exception as error:  # whatever load_state_dict raises
        raise _unfit(path, type(module).__name__, error) from error


def _unfit(path: Path, name: str, error: Exception) -> InputError:
    lines = str(error).strip().splitlines()
    return InputError(
        f"{path} must contain weights that fit {name} ({lines[0] if lines else repr(error)}): pass the make_module of "
        "the search"
    )
