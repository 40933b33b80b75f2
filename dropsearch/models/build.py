"""Builds networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dropsearch.core.errors import InputError, close_match
from dropsearch.models.cnn import CNN
from dropsearch.models.mlp import MLP
from dropsearch.models.network import Network
from dropsearch.models.rnn import RNN
from dropsearch.models.transformer import Transformer

NETS: Mapping[str, type[Network]] = {net.name: net for net in (MLP, CNN, RNN, Transformer)}


def build_net(config: Mapping[str, Any]) -> Network:
    """Build a network from its name and constructor arguments, as returned by `Network.config`.

    Raises:
        InputError: The name or an option is unknown, an option is missing, or a value is out of range.
    """
    options = dict(config)
    name = options.pop("name", None)
    if name not in NETS:
        raise InputError(f"model.name must be one of {', '.join(NETS)}, got {name!r}{close_match(str(name), NETS)}")
    _check_options(name, options)
    try:
        return NETS[name](**options)
    except (ValueError, TypeError) as error:
        raise InputError(f"model {name}: {error}") from error


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(NETS[name]).parameters
    for key in options:
        if key not in parameters:
            hint = close_match(key, parameters)
            raise InputError(f"model.{key} is not an option of {name}{hint}; options: {', '.join(parameters)}")
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in options]
    if missing:
        raise InputError(f"model {name} needs {', '.join(missing)}")
