"""What else is searched: where it begins, and the programs that are looked at before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dropsearch.core.errors import InputError
from dropsearch.core.records import Range, Site
from dropsearch.core.records.ranges import combinations, first_value, written
from dropsearch.training.vectorized.partitioned_feed import BY_ROW

MOST = 8
"""More combinations of what decides a trial's program are not looked at one by one: each value is seen once then."""


def start(searched: Mapping[str, Range], configured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the first trials: those configured where they are in the range, else the middle."""
    return {key: first_value(given, configured.get(key)) for key, given in searched.items()}


def programs(searched: Mapping[str, Range]) -> tuple[dict[str, Any], ...]:
    """Return the values that decide which program a trial runs, in combinations: one empty one where nothing does."""
    return combinations({key: given for key, given in searched.items() if key not in BY_ROW}, MOST)


def never_alike(searched: Mapping[str, Range]) -> str:
    """Return the key in which no two trials are alike, so that each is a program of its own; empty where none is."""
    apart = (key for key, given in searched.items() if key not in BY_ROW and not given.repeats)
    return next(apart, "")


def alike_in_rows(searched: Mapping[str, Range], program: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of two trials of one program, as far apart as the rows of one program may be."""
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
        searched: What else is searched.
        begun: The values of the model that has `sites`.
        sites: The sites whose rates are searched.
        look: Returns the sites of a model with other values.

    Raises:
        InputError: One has others, or cannot be built.
    """
    ours = {key: given for key, given in searched.items() if key.startswith("model.")}
    known = {site.name for site in sites}
    for values in programs(ours) if ours else ():
        try:
            found = {site.name for site in look({**begun, **values})}
        except InputError as error:
            raise InputError(
                f"space.params must hold values that can be trained, got {describe_values(values)}: {error}"
            ) from error
        if found != known:
            raise InputError(
                f"space.params must not change the model's sites, whose rates are searched, got "
                f"{describe_values(values)}, with which {_difference(known, found)}: give each set of sites a run "
                "of its own"
            )


def describe_values(values: Mapping[str, Any]) -> str:
    """Return values by key, as one types them."""
    return ", ".join(f"{key}={written(value)}" for key, value in values.items())


def _difference(known: set[str], found: set[str]) -> str:
    if more := sorted(found - known):
        return f"there is {', '.join(more)} as well"
    return f"there is no {', '.join(sorted(known - found))}"
