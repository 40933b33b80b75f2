"""Searched parameters other than rates: learning rates, initial values, and checks of all resulting programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dropsearch.core.errors import InputError
from dropsearch.core.override_text import written
from dropsearch.core.records import Range, Site
from dropsearch.core.records.ranges import combinations, first_value
from dropsearch.training.vectorized.partitioned_feed import BY_ROW

MOST = 8
"""Maximum number of checked combinations of program parameters; for more, each value is checked once."""


def start(searched: Mapping[str, Range], configured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the first trials: configured values within the range, otherwise the middle."""
    return {key: first_value(given, configured.get(key)) for key, given in searched.items()}


def programs(searched: Mapping[str, Range]) -> tuple[dict[str, Any], ...]:
    """Return the combinations of values that determine a trial's program; one empty combination if none do."""
    return combinations({key: given for key, given in searched.items() if key not in BY_ROW}, MOST)


def never_alike(searched: Mapping[str, Range]) -> str:
    """Return a key whose values do not repeat between trials, so that each trial has its own program; else empty."""
    apart = (key for key, given in searched.items() if key not in BY_ROW and not given.repeats)
    return next(apart, "")


def alike_in_rows(searched: Mapping[str, Range], program: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of two trials with the same program that differ as much as possible."""
    by_row = {key: given.ends for key, given in searched.items() if key in BY_ROW}
    first, last = ({key: ends[place] for key, ends in by_row.items()} for place in (0, -1))
    return {**program, **first}, {**program, **last}


def check_sites(
    searched: Mapping[str, Range],
    begun: Mapping[str, Any],
    sites: Sequence[Site],
    look: Callable[[Mapping[str, Any]], Sequence[Site]],
) -> None:
    """Check that every program has the sites whose rates are searched.

    Args:
        look: Returns the sites of a model with given values.
    """
    ours = {key: given for key, given in searched.items() if key.startswith("model.")}
    known = {site.name for site in sites}
    for values in programs(ours) if ours else ():
        try:
            found = {site.name for site in look({**begun, **values})}
        except InputError as error:
            raise InputError(
                f"space.params must contain values that can be trained, got {describe_values(values)}: {error}"
            ) from error
        if found != known:
            raise InputError(
                f"space.params must not change the model's sites, whose rates are searched, got "
                f"{describe_values(values)}, with which {_difference(known, found)}: use a separate run for each set "
                "of sites"
            )


def describe_ranges(searched: Mapping[str, Range]) -> str:
    """Return searched keys with their ranges as a list for people."""
    return "; ".join(f"{key} ({given.in_words})" for key, given in searched.items())


def describe_values(values: Mapping[str, Any]) -> str:
    """Return values by key, as typed by a user."""
    return ", ".join(f"{key}={written(value)}" for key, value in values.items())


def _difference(known: set[str], found: set[str]) -> str:
    if more := sorted(found - known):
        return f"there is {', '.join(more)} as well"
    return f"there is no {', '.join(sorted(known - found))}"


@dataclass(frozen=True)
class LearningRates:
    """The searched learning rates.

    Args:
        own: The module's default; NaN if it has none.
    """

    configured: tuple[float, float]
    own: float
    is_default: bool

    @property
    def _beyond(self) -> bool:
        low, high = self.configured
        return 0 < self.own < low or self.own > high

    @property
    def searched(self) -> tuple[float, float]:
        """The configured range, extended to the module's default unless the user set the range."""
        low, high = self.configured
        return (min(low, self.own), max(high, self.own)) if self._beyond and self.is_default else self.configured

    @property
    def note(self) -> str:
        """A note if the configured range does not contain the module's default."""
        if not self._beyond:
            return ""
        low, high = self.configured
        left_out = f"space.lr ({low:.4g} to {high:.4g}) does not contain the module's learning rate {self.own:.4g}"
        if self.is_default:
            low, high = self.searched
            return f"{left_out}: it is searched from {low:.4g} to {high:.4g}, and its own is the first trial"
        return f"{left_out}: space.lr.{'low' if self.own < low else 'high'}={self.own:.4g} includes it"
