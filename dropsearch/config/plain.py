"""A configuration as plain values, to be written and compared, with references to the environment for its secrets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from dropsearch.config.schema import REFERENCE, Config, OptimizerConfig, arguments
from dropsearch.core.printable import is_secret_key, masked_values


def plain(config: Config) -> dict[str, Any]:
    """Return a configuration as nested dictionaries, including arguments of classes.

    Objects passed from Python are represented by the names of their types.
    """
    values = dataclasses.asdict(config)
    for group in ("model", "data", "trainer"):
        given = arguments(getattr(config, group))
        values[group] |= {k: REFERENCE if isinstance(v, OptimizerConfig) else v for k, v in given.items()}
    return _in_words(values)


def _in_words(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _in_words(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_in_words, value))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    # No object address: it would differ when another process continues the study.
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


OPTIONAL_SECRETS = ("study.storage", "study.warm_start", "tracking.uri")
"""Keys whose value a retraining does not need."""


def secret_reference(key: str, *default: str, is_text: bool = True) -> str:
    """Return what stands for a value that is not written down: a reference to the environment, as OmegaConf reads it.

    Args:
        key: The configuration key.
        default: The value where the variable is not set; without one it is an error.
        is_text: Whether the value is text, not a number.
    """
    found = f"${{oc.env:{','.join((secret_variable(key), *default))}}}"
    return found if is_text else f"${{oc.decode:{found}}}"


def secret_variable(key: str) -> str:
    """Return the environment variable for a key's secret value: `study.storage` has `DROPSEARCH_STUDY_STORAGE`."""
    return "DROPSEARCH_" + re.sub(r"\W+", "_", key.lstrip("+~")).upper()


def without_secrets(values: Any, key: str = "", above: str = "") -> Any:
    """Return a configuration's values with references to the environment in place of passwords and tokens.

    Args:
        values: The values.
        key: Their key.
        above: The key above that names a secret, if one does: all that stands under it is one.
    """
    above = above or (key if is_secret_key(key) else "")
    if isinstance(values, Mapping):
        named = {name: f"{key}.{name}" if key else str(name) for name in values}
        return {name: without_secrets(value, named[name], above) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_secrets(value, f"{key}.{index}", above) for index, value in enumerate(values)]
    if masked_values(values, above or key) == values:
        return values
    return secret_reference(key, *(("null",) if key in OPTIONAL_SECRETS else ()), is_text=isinstance(values, str))
