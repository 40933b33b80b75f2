"""A configuration as plain values, which can be written and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dropsearch.config.schema import REFERENCE, Config, OptimizerConfig, arguments


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
