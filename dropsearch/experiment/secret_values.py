"""Passwords and tokens of a configuration: references to the environment stand for them where values are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dropsearch.core.printable import is_secret_key, masked_values

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
