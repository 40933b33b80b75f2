"""Whether the rates of a module of the user's own change anything: tried once, before anything is spent."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError
from dropsearch.core.records import ARMS, Site
from dropsearch.dropout.tools.check import DropoutCheck, check_dropout
from dropsearch.experiment import build, user_module
from dropsearch.experiment.build import Source
from dropsearch.training.adapters.probe import trained_for
from dropsearch.training.logged_steps import on_device_of
from dropsearch.training.modes import set_to_train

STEPS = 3
"""How many steps a module trains before a site is said to be without effect."""


@dataclass(frozen=True)
class Tried:
    """What was tried of one module, in training mode, in which trials train."""

    found: DropoutCheck | None
    """None where it could not be tried."""
    why_not: str
    in_eval: tuple[str, ...]
    """The parts that are handed over in eval mode, the largest alone; an empty name for the module."""
    is_trained: bool = True
    """Whether sites without effect were tried again after a few steps."""

    def of_module(self, name: str) -> Iterator[str]:
        """Yield what is wrong with the module as a whole, a line each.

        Args:
            name: What reports call it.
        """
        yield from (_in_eval(part, name) for part in self.in_eval)
        if self.found is None:
            yield f"whether its rates change anything was not tried ({self.why_not})"
        elif self.found.sites:
            yield from self.found.findings

    def of_sites(self) -> Iterator[str]:
        """Yield what is wrong with the sites that are searched, a line each."""
        for each in self.found.sites if self.found else ():
            said = any(part and _holds(part, each.site.name) for part in self.in_eval)
            if each.site.controllable and each.finding and not said:
                yield f"the site {each.site.name}: {each.finding}"


_TRIED: weakref.WeakKeyDictionary[Any, Tried] = weakref.WeakKeyDictionary()


def tried(config: Config, source: Source) -> Tried:
    """Return what the rates of the model do, tried once for a source."""
    if source not in _TRIED:
        module, batch = build.specimen(config, source)
        _TRIED[source] = _looked_at_again(_try(module, batch), config, source)
    return _TRIED[source]


def _looked_at_again(first: Tried, config: Config, source: Source) -> Tried:
    """Return what was tried, with the sites that come alive after a few steps: a factor of LoRA starts at zero."""
    dead = set(first.found.dead) if first.found else set()
    if not dead or not user_module.is_user_module(config):
        return first
    module, batch = build.specimen(config, source)
    batches = user_module.batches(source, config.seed)
    if not trained_for(module, batches, build.settings(config), STEPS):
        return replace(first, is_trained=False)
    again = _try(module, batch).found
    alive = {each.site.name: each for each in again.sites if each.alive} if again else {}
    sites = tuple(alive.get(each.site.name, each) for each in first.found.sites) if first.found else ()
    return replace(
        first, found=replace(first.found, sites=sites) if first.found else None, is_trained=again is not None
    )


def _try(module: Any, batch: Any) -> Tried:
    asleep = [name for name, part in module.named_modules() if not part.training]
    outermost = tuple(name for name in asleep if not any(_holds(other, name) for other in asleep))
    set_to_train(module)
    try:
        return Tried(check_dropout(module, on_device_of(module, batch)), "", outermost)
    except InputError as error:
        return Tried(None, str(error).partition(": ")[0], outermost)


def _holds(outer: str, inner: str) -> bool:
    return outer != inner and (not outer or inner.startswith(f"{outer}."))


def _in_eval(part: str, name: str) -> str:
    if part:
        return (
            f"the part {part} is handed over in eval mode and stays in it, as under Lightning: nothing in it is "
            f"dropped; where it is to train, call self.{part}.train() in {name}"
        )
    return (
        f"the module {name} is handed over in eval mode, and the search trains it in training mode: before a fit of "
        "your own call module.train(), for Lightning trains a module in the mode in which it gets it, and nothing "
        "would be dropped"
    )


def notes(config: Config, source: Source) -> tuple[str, ...]:
    """Return what a reader must know of the modes and sites of a module of the user's own, where rates are searched."""
    if not user_module.is_user_module(config) or not _dropping(config):
        return ()
    found = tried(config, source)
    return (*found.of_module(config.model.name), *found.of_sites())


def require_active_dropout(config: Config, source: Source, sites: Sequence[Site]) -> None:
    """Check that the rates of a module of the user's own are worth a search.

    Raises:
        InputError: An arm searches rates, and none of them changes anything.
    """
    arms = _dropping(config)
    if not user_module.is_user_module(config) or not arms:
        return
    look = tried(config, source)
    found = look.found if look.is_trained else None
    dead = {each.site.name: each.finding for each in found.sites if each.alive is False} if found else {}
    searched = [site.name for site in sites if site.controllable]
    if searched and all(name in dead for name in searched):
        raise InputError(
            f"arms must not name {arms[0]} for a module whose rates change nothing, got model={config.model.name} "
            f"with {', '.join(searched)} ({dead[searched[0]]}), so every rate would score alike: see task=sites"
        )


def _dropping(config: Config) -> list[str]:
    return [name for name in config.arms if ARMS[name].dropout != "off"]
