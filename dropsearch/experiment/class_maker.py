"""Building a class of the configuration for each trial, without Hydra where Hydra changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dropsearch.experiment.targets import instantiated, is_plain, named_failure


class ClassMaker:
    """Builds a class of the configuration for each trial.

    Hydra, which takes milliseconds, builds the first one, and those with arguments that it would make or convert.

    Args:
        target: The name of the class.
        group: The group of the configuration, for messages.
        make: The class itself.
    """

    def __init__(self, target: str, group: str, make: Callable[..., Any]) -> None:
        self._target, self._group, self._make = target, group, make
        self._is_allowed = False
        """Whether Hydra has built the class, which it refuses for some."""

    def __call__(self, given: Mapping[str, Any], as_they_are: Mapping[str, Any]) -> Any:
        """Build the class; the arguments are those of `instantiated`."""
        if not self._is_allowed or not is_taken_plainly(given):
            made = instantiated(self._target, given, self._group, as_they_are)
            self._is_allowed = True
            return made
        with named_failure(self._target, self._group):
            plain = {name: _copied(value) for name, value in given.items() if not name.startswith("_")}
            return self._make(**plain, **as_they_are)


def is_taken_plainly(given: Mapping[str, Any]) -> bool:
    """Return whether a class gets arguments from Hydra as they are in the configuration."""
    values = {name: value for name, value in given.items() if name != "_convert_"}
    converts = given.get("_convert_") in ("all", "partial", "object")
    return is_plain(values) and not any(map(_is_hydras, _names_in(values))) and (converts or _is_flat(values))


def _names_in(value: Any) -> Iterator[Any]:
    """Yield the names in a value and in all that it holds."""
    if isinstance(value, Mapping):
        yield from value
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _names_in(each)


def _is_hydras(name: Any) -> bool:
    """Return whether Hydra may read a name itself instead of passing it on."""
    return not isinstance(name, str) or name.startswith("_")


def _is_flat(values: Mapping[str, Any]) -> bool:
    return not any(isinstance(value, Mapping | list | tuple) for value in values.values())


def _copied(value: Any) -> Any:
    """Return new plain dictionaries and lists, as Hydra makes them."""
    if isinstance(value, Mapping):
        return {name: _copied(each) for name, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list | tuple) else value
