"""Arguments of a module that decide about its sites: which exist only at a rate above 0, and whose rates they set."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from dropsearch.core.errors import InputError
from dropsearch.core.records import Site
from dropsearch.dropout.tools.dry_run import DryRun
from dropsearch.dropout.tools.inventory import take_inventory
from dropsearch.training.logged_steps import on_device_of

TRIED = 0.1
"""The rate with which a module is built to detect them."""

Path = tuple[str, ...]
"""The name of an argument, and keys or fields inside it."""


def absent_sites(
    build: Callable[[dict[str, Any]], Any], arguments: Mapping[str, Any], sites: Collection[Site], batch: Any
) -> dict[str, tuple[str, ...]]:
    """Return the sites that appear when an argument that is 0 and has "drop" in its name is set above 0, by argument.

    `build` builds the module with changed arguments; an argument is named as ``dropout`` or ``net.dropout``.
    """
    known = {site.name for site in sites if site.controllable}

    def appearing(paths: Collection[Path]) -> tuple[str, ...]:
        changed = dict(arguments)
        for path in paths:
            changed = _with(changed, path, TRIED)
        found = _sites(build, {path[0]: changed[path[0]] for path in paths}, batch)
        return tuple(site.name for site in found if site.name not in known)

    zeros = list(_zeros(arguments))
    if not zeros or not (together := appearing(zeros)):
        return {}
    alone = {".".join(path): together if len(zeros) == 1 else appearing([path]) for path in zeros}
    return {name: names for name, names in alone.items() if names}


def describe(absent: Mapping[str, tuple[str, ...]]) -> str:
    """Return a text with the sites by argument; empty if there are none."""
    parts = (f"model.{name}={TRIED} makes {', '.join(names)}" for name, names in absent.items())
    return f"sites that exist only at a rate above 0 are not searched: {'; '.join(parts)}" if absent else ""


def rates_set_by(
    build: Callable[[dict[str, Any]], Any], searched: Mapping[str, tuple[Any, ...]], batch: Any
) -> dict[str, tuple[str, ...]]:
    """Return the sites whose own rates a searched argument sets, by argument; a search replaces these rates.

    Args:
        searched: The lowest and the highest value of each argument, or all of its choices.
    """
    found = {}
    for name, ends in searched.items():
        built = [_sites(build, {name: value}, batch) for value in (ends[0], ends[-1])]
        rates = [{site.name: site.rate for site in each if not math.isnan(site.rate)} for each in built]
        sites = tuple(site for site, rate in rates[0].items() if rates[1].get(site, rate) != rate)
        found |= {name: sites} if sites else {}
    return found


def _sites(build: Callable[[dict[str, Any]], Any], changed: dict[str, Any], batch: Any) -> list[Site]:
    """Return the controllable sites of a module with changed arguments; none if it cannot be built with these."""
    try:
        module = build(changed)
        found = take_inventory(DryRun(module, on_device_of(module, batch), "task=sites"), {})
    except (InputError, ValueError, TypeError):
        return []
    return [site for site in found if site.controllable]


def describe_rates(found: Mapping[str, tuple[str, ...]]) -> str:
    """Return a text with the sites by argument; empty if there are none."""
    parts = (
        f"the values of model.{name} have no effect on {', '.join(sites)}, whose rate is searched by itself: leave it "
        "out of space.params if it is only that rate"
        for name, sites in found.items()
    )
    return "; ".join(parts)


def _zeros(value: Any, path: Path = ()) -> Iterator[Path]:
    for name, inside in _items(value):
        is_number = isinstance(inside, int | float) and not isinstance(inside, bool)
        if is_number and inside == 0 and "drop" in name.lower():
            yield (*path, name)
        elif not is_number:
            yield from _zeros(inside, (*path, name))


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((name, inside) for name, inside in value.items() if isinstance(name, str))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((each.name, getattr(value, each.name)) for each in dataclasses.fields(value) if each.init)


def _with(value: Any, path: Path, new: float) -> Any:
    """Return a copy of a value with the number at a path replaced."""
    if not path:
        return new
    inside = _with(dict(_items(value))[path[0]], path[1:], new)
    if isinstance(value, Mapping):
        return {**value, path[0]: inside}
    return dataclasses.replace(value, **{path[0]: inside})
