"""What `dropsearch.search` is given, put into the configuration: each value in the type of its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError

KEYS = {
    "n_trials": "study.n_trials",
    "max_epochs": "trainer.max_epochs",
    "seed": "seed",
    "monitor": "monitor",
    "mode": "mode",
    "arms": "arms",
    "output_dir": "output_dir",
    "tracking": "tracking.name",
    "engine": "engine.name",
    "accelerator": "trainer.accelerator",
    "confirm_top_k": "confirm.top_k",
    "confirm_seeds": "confirm.seeds",
}
"""The configuration key that each argument decides, whether it is given or has its default."""
MAYBE = {"name": "model.name", "tracking_uri": "tracking.uri", "batchnorm": "batchnorm.replace"}
MAYBE |= {"sampler": "sampler.name", "pruner": "pruner.name", "storage": "study.storage", "timeout": "study.timeout"}
"""The same for those that decide it only where they are given."""
RANGES = {"lr": "space.lr", "weight_decay": "space.weight_decay", "rates": "space"}
"""The same for ranges, whose keys end in .low and .high."""


def put(config: Config, key: str, value: Any, named: str) -> None:
    """Set a key, converted as on the command line.

    Args:
        config: The configuration.
        key: With dots.
        value: What was given.
        named: The argument by which it was given.

    Raises:
        InputError: The value is of another type.
    """
    above, _, name = key.rpartition(".")
    owner: Any = config
    for part in above.split(".") if above else ():
        owner = getattr(owner, part)
    typed = OmegaConf.structured(type(owner))
    try:
        typed[name] = value
    except (OmegaConfBaseException, ValueError) as error:
        said = " ".join(str(error).splitlines()[0].split())
        raise InputError(f"{named} must be of the type of {key}, got {value!r}: {said}") from error
    setattr(owner, name, OmegaConf.to_container(typed, resolve=False)[name])  # type: ignore[call-overload, index]


def put_bounds(config: Config, argument: str, value: Any) -> None:
    """Set a range.

    Raises:
        InputError: It is no pair of numbers.
    """
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError(f"{argument} must be a range (low, high), got {value!r}: as in {argument}=(0.001, 0.1)")
    for end, number in zip(("low", "high"), value, strict=True):
        put(config, f"{RANGES[argument]}.{end}", number, argument)


def mapping(argument: str, value: Any) -> Mapping[str, Any]:
    """Return what was given by name, an empty mapping for None.

    Raises:
        InputError: It is no mapping.
    """
    if value is not None and not isinstance(value, Mapping):
        raise InputError(f"{argument} must be a mapping, got {value!r}: as in {argument}={{NAME: VALUE}}")
    return value or {}


def check_overrides(overrides: Any, given: Mapping[str, Any]) -> None:
    """Refuse a further key that an argument decides, over which the argument would win without a word.

    Args:
        overrides: As on the command line.
        given: All arguments.

    Raises:
        InputError: There is one, or what was given is no list of words.
    """
    if isinstance(overrides, str) or not isinstance(overrides, Sequence):
        raise InputError(f'overrides must be a list of KEY=VALUE, got {overrides!r}: as in ["sampler=random"]')
    decided = {key: argument for argument, key in KEYS.items()}
    decided |= {key: argument for argument, key in MAYBE.items() if given[argument] is not None}
    for argument in (argument for argument in RANGES if given[argument] is not None):
        decided |= {f"{RANGES[argument]}.{end}": argument for end in ("low", "high")}
    for word in overrides:
        key = str(word).lstrip("+~").partition("=")[0]
        argument = decided.get(key, decided.get(f"{key}.name"))
        if argument is not None:
            raise InputError(
                f"overrides must leave out {key}, which the argument {argument} says, got {word}: give {argument}=..."
            )
