"""Type checks for the arguments of `dropsearch.search`, and their conversion to the configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropsearch.config.schema import Config, RangeConfig, TrainerConfig
from dropsearch.core.errors import InputError
from dropsearch.core.records import ARMS


def whole(argument: str, value: object) -> int:
    """Return an integer; raise InputError for any other type, as all functions here do."""
    _require(isinstance(value, Integral) and not isinstance(value, bool), argument, "an integer", value, "=10")
    return int(value)  # type: ignore[call-overload]


def seconds(argument: str, value: object) -> float:
    """Return a number of seconds."""
    _require(_is_number(value), argument, "a number of seconds", value, "=600")
    return float(value)  # type: ignore[arg-type]


def word(argument: str, value: object) -> str:
    """Return a string."""
    _require(isinstance(value, str), argument, "a string", value, '="..."')
    return str(value)


def words(argument: str, value: Any) -> list[str]:
    """Return a list of strings."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    _require(is_list, argument, "a list of strings", value, '=["..."]')
    return [word(argument, each) for each in value]


def bounds(argument: str, value: Any) -> RangeConfig:
    """Return a range."""
    is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))
    _require(is_pair, argument, "a range (low, high)", value, "=(0.001, 0.1)")
    found = RangeConfig(*map(float, value))
    found.is_given = True
    return found


def mapping(argument: str, value: Any) -> Mapping[str, Any]:
    """Return a mapping; None becomes an empty one."""
    _require(value is None or isinstance(value, Mapping), argument, "a mapping", value, "={NAME: VALUE}")
    return value or {}


def by_arm(argument: str, value: Any, arms: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a mapping by arm, whose arms must be among those that run."""
    found = mapping(argument, value)
    for arm in found:
        if arm in ARMS and arm not in arms:
            raise InputError(
                f'{argument} must be of arms that run ({", ".join(arms)}), got "{arm}": add it to arms, or leave it out'
            )
    return {arm: dict(given) if isinstance(given, Mapping) else given for arm, given in found.items()}


def logger_argument(value: Any) -> Any:
    """Return a Lightning logger, a function that makes one, or None."""
    fits = value is None or callable(value) or hasattr(value, "log_metrics")
    _require(fits, "logger", "a Lightning logger or a function that makes one", value, '=CSVLogger("logs")')
    return value


def _require(fits: bool, argument: str, rule: str, value: object, example: str) -> None:
    if not fits:
        raise InputError(f"{argument} must be {rule}, got {value!r}: for example {argument}{example}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def with_trainer(config: TrainerConfig, given: Mapping[str, Any]) -> TrainerConfig:
    """Return the Trainer configuration with given values; unknown keys become arguments of the Trainer.

    Raises:
        InputError: A value has the wrong type for its key.
    """
    typed = OmegaConf.structured(TrainerConfig)
    for name, value in given.items():
        if name in typed:
            try:
                typed[name] = value
            except (OmegaConfBaseException, ValueError) as error:
                message = " ".join(str(error).splitlines()[0].split())
                raise InputError(
                    f"trainer[{name!r}] must have the type of trainer.{name}, got {value!r}: {message}"
                ) from error
            value = typed[name]
        setattr(config, name, value)
    return config


def named_overrides(sampler: Any, pruner: Any) -> list[str]:
    """Return the overrides for a sampler and a pruner given by name."""
    named = {"sampler": sampler, "pruner": pruner}
    return [f"{group}={name}" for group, name in named.items() if isinstance(name, str)]


def check_objects(sampler: Any, pruner: Any, storage: Any) -> None:
    """Check objects; names and URLs are checked with the configuration.

    Raises:
        InputError: An object has the wrong type.
    """
    if not all(isinstance(given, str | None) for given in (sampler, pruner, storage)):
        from dropsearch.study import algorithms  # imports Optuna

        algorithms.check_objects(sampler, pruner, storage)


def put_objects(config: Config, sampler: Any, pruner: Any, storage: Any) -> None:
    """Store objects in a checked configuration; reports show the names of their classes."""
    chosen: Any
    for chosen, given in ((config.sampler, sampler), (config.pruner, pruner)):
        if given is not None and not isinstance(given, str):
            chosen.made_by, chosen.name = given, type(given).__name__
    if storage is not None and not isinstance(storage, str):
        config.study.storage = storage


def address(storage: Any) -> Any:
    """Return a path as a string and anything else unchanged."""
    return os.fspath(storage) if isinstance(storage, os.PathLike) else storage
