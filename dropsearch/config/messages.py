"""Hydra's and OmegaConf's errors, told in one line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from dropsearch.config.schema import SCHEMAS, Config
from dropsearch.errors import close_match

GROUPS = (
    "model",
    "data",
    "space",
    "optimizer",
    "sampler",
    "pruner",
    "engine",
    "trainer",
    "tracking",
    "experiment",
)

ConfigurationErrors = (ConfigCompositionException, OmegaConfBaseException)


def known_keys() -> set[str]:
    """Return every key that a configuration may have."""
    keys = set(_keys(Config, ""))
    for group, schemas in SCHEMAS.items():
        for schema in schemas.values():
            keys |= set(_keys(schema, f"{group}."))
    return keys


def _keys(schema: type, prefix: str) -> Iterator[str]:
    hints = {f.name: f for f in dataclasses.fields(schema)}
    for name, field in hints.items():
        yield f"{prefix}{name}"
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
        if dataclasses.is_dataclass(default):
            yield from _keys(type(default), f"{prefix}{name}.")


def one_line(error: Exception) -> str:
    """Tell a configuration error: the rule, the value, the key, and the name that may have been meant."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(error)
    if isinstance(error, OverrideParseException):
        return f'an override must read KEY=VALUE, got "{error.override}" ({_first(error)}): quote it for the shell'
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None) or ""
    if "not in" in str(cause) and key:
        return _unknown_key(key)
    if key:
        return f"{key} has the wrong type: {_first(cause)}"
    return _first(cause)


def _missing(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = [option for option in error.options or () if not option.startswith("_")]
    if not options:
        return f'there is no configuration "{error.missing_cfg_file}": --cfg job shows the one in use'
    return f'{group} must be one of {", ".join(options)}, got "{name}"{close_match(name, options)}'


def _unknown_key(key: str) -> str:
    near = close_match(key, known_keys() | set(GROUPS))
    return f'"{key}" is not a key of the configuration{near}: python -m dropsearch --cfg job shows them all'


def _first(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.sub(r"\s+", " ", line)
