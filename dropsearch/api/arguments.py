"""Type checks for the arguments of `dropsearch.search`, and their conversion to the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropsearch.config.schema import RangeConfig, TrainerConfig
from dropsearch.core.errors import InputError


def whole(argument: str, value: object) -> int:
    """Return an integer.

    Raises:
        InputError: The value has another type.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{argument} must be an integer, got {value!r}: for example {argument}=10")
    return int(value)


def seconds(argument: str, value: object) -> float:
    """Return a number of seconds.

    Raises:
        InputError: The value has another type.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{argument} must be a number of seconds, got {value!r}: for example {argument}=600")
    return float(value)


def word(argument: str, value: object) -> str:
    """Return a string.

    Raises:
        InputError: The value has another type.
    """
    if not isinstance(value, str):
        raise InputError(f'{argument} must be a string, got {value!r}: for example {argument}="..."')
    return value


def logger_argument(value: Any) -> Any:
    """Return a Lightning logger, a function that makes one, or None.

    Raises:
        InputError: The value is neither.
    """
    if value is not None and not callable(value) and not hasattr(value, "log_metrics"):
        raise InputError(
            f"logger must be a Lightning logger or a function that makes one, got {value!r}: for example "
            'logger=CSVLogger("logs")'
        )
    return value


def words(argument: str, value: object) -> list[str]:
    """Return a list of strings.

    Raises:
        InputError: The value has another type.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f'{argument} must be a list of strings, got {value!r}: for example {argument}=["..."]')
    return [word(argument, each) for each in value]


def bounds(argument: str, value: object) -> RangeConfig:
    """Return a range.

    Raises:
        InputError: The value is not a pair of numbers.
    """
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(_is_number(end) for end in value):
        raise InputError(f"{argument} must be a range (low, high), got {value!r}: for example {argument}=(0.001, 0.1)")
    low, high = value
    found = RangeConfig(float(low), float(high))
    found.is_given = True
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def mapping(argument: str, value: Any) -> Mapping[str, Any]:
    """Return a mapping; None becomes an empty one.

    Raises:
        InputError: The value is not a mapping.
    """
    if value is not None and not isinstance(value, Mapping):
        raise InputError(f"{argument} must be a mapping, got {value!r}: for example {argument}={{NAME: VALUE}}")
    return value or {}


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
