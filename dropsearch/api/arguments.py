"""Type checks for the arguments of `dropsearch.search`, and their conversion to the configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropsearch.config.schema import RangeConfig, TrainerConfig
from dropsearch.core.errors import InputError

DECIDES: Mapping[str, tuple[str, ...]] = {
    "n_trials": ("study.n_trials",),
    "max_epochs": ("trainer.max_epochs",),
    "seed": ("seed",),
    "monitor": ("monitor",),
    "mode": ("mode",),
    "arms": ("arms",),
    "output_dir": ("output_dir",),
    "tracking": ("tracking", "tracking.name"),
    "engine": ("engine", "engine.name"),
    "accelerator": ("trainer.accelerator",),
    "confirm_top_k": ("confirm.top_k",),
    "confirm_seeds": ("confirm.seeds",),
    "name": ("model.name",),
    "tracking_uri": ("tracking.uri",),
    "batchnorm": ("batchnorm.replace",),
    "lr": ("space.lr.low", "space.lr.high"),
    "weight_decay": ("space.weight_decay.low", "space.weight_decay.high"),
    "rates": ("space.low", "space.high"),
    "sampler": ("sampler", "sampler.name"),
    "pruner": ("pruner", "pruner.name"),
    "storage": ("study.storage",),
    "timeout": ("study.timeout",),
    "budget": ("budget",),
}
"""The configuration keys that each argument sets; `overrides` must not contain them."""


def check_overrides(overrides: Any, left_out: Collection[str]) -> None:
    """Reject overrides of keys that arguments set, since the arguments would silently win.

    Args:
        overrides: Overrides as on the command line.
        left_out: Arguments that are not given, whose keys may be overridden.

    Raises:
        InputError: An override conflicts with an argument, or `overrides` is not a list of strings.
    """
    if isinstance(overrides, str) or not isinstance(overrides, Sequence):
        raise InputError(f'overrides must be a list of KEY=VALUE, got {overrides!r}: for example ["sampler=random"]')
    decided = {key: argument for argument, keys in DECIDES.items() if argument not in left_out for key in keys}
    for word in overrides:
        key = str(word).lstrip("+~").partition("=")[0]
        if key in decided:
            raise InputError(
                f"overrides must leave out {key}, which the argument {decided[key]} sets, got {word}: use "
                f"{decided[key]}=..."
            )


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
