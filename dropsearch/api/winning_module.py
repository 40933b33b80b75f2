"""The trained model of an arm, rebuilt and loaded from its checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialSpec
from dropsearch.core.user_errors import described
from dropsearch.experiment.targets import made_arguments
from dropsearch.training.adapters.hyperparameters import accepted, arguments_of, routes
from dropsearch.training.adapters.layers import builds_in_hooks


def built(make_module: Callable[..., Any], spec: TrialSpec, config: Mapping[str, Any]) -> Any:
    """Return a new module with the constructor arguments of a trial.

    Args:
        make_module: The class or function that builds it.
        spec: The trial.
        config: The configuration of the run, as plain containers.
    """
    names, open_ended = accepted(make_module)
    if open_ended and not inspect.isclass(make_module):
        names |= {"lr", "weight_decay"}
    known = made_arguments(config["model"])
    configured = {name: value for name, value in known.items() if name in names and name != "name"}
    searched = {
        key.removeprefix("model."): value for key, value in spec.hyperparameters.items() if key.startswith("model.")
    }
    of_arm = config["arm_args"].get(spec.arm, {})
    return make_module(**{**configured, **of_arm, **searched, **arguments_of(spec, routes(names, []))})


def weights_of(path: Path, name: str) -> Mapping[str, Any]:
    """Return the weights in a checkpoint of a class; the file is read with ``weights_only=True``.

    Raises:
        InputError: The file is missing, or contains objects other than tensors and numbers.
    """
    if not path.is_file():
        raise InputError(f"the checkpoint {path} must exist, but there is no such file: run the search again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # zip, pickle and key errors
        raise _unfit(path, name, error) from error


def with_layers(module: Any, weights: Mapping[str, Any]) -> Any:
    """Return a module after its hooks have built the layers that its constructor leaves out.

    Args:
        module: The module.
        weights: Those that it is to have; where it has them all, no hook runs.

    Raises:
        InputError: A hook fails.
    """
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
    """Load the weights that a checkpoint contains into a module.

    Raises:
        InputError: They do not fit.
    """
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
