"""The trained model of an arm, rebuilt and loaded from its checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialSpec
from dropsearch.training.adapters.hyperparameters import accepted, arguments_of, routes


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
    configured = {name: value for name, value in config["model"].items() if name in names and name != "name"}
    searched = {
        key.removeprefix("model."): value for key, value in spec.hyperparameters.items() if key.startswith("model.")
    }
    of_arm = config["arm_args"].get(spec.arm, {})
    return make_module(**{**configured, **of_arm, **searched, **arguments_of(spec, routes(names, []))})


def load_weights(module: Any, path: Path) -> None:
    """Load the weights of a checkpoint into a module; the file is read with ``weights_only=True``.

    Raises:
        InputError: The file is missing, holds objects other than tensors and numbers, or does not fit the module.
    """
    if not path.is_file():
        raise InputError(f"the checkpoint {path} must exist, but there is no such file: run the search again")
    try:
        module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    except Exception as error:  # zip, pickle and key errors, and whatever load_state_dict raises
        lines = str(error).strip().splitlines()
        raise InputError(
            f"{path} must contain weights that fit {type(module).__name__} ({lines[0] if lines else error!r}): "
            "pass the make_module of the search"
        ) from error
