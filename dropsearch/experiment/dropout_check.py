"""Whether the rates of a module of the user's own change anything: tried once, before anything is spent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dropsearch.core.errors import InputError
from dropsearch.dropout.tools.check import DropoutCheck, check_dropout
from dropsearch.training.logged_steps import on_device_of
from dropsearch.training.modes import set_to_train

STEPS = 3
"""How many steps a module trains before a site is said to be without effect."""


@dataclass(frozen=True)
class RateCheck:
    """What the rates of one module change, in training mode, in which trials train."""

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

    def notes(self, name: str) -> tuple[str, ...]:
        """Return what is wrong with the module and with the sites that are searched, a line each."""
        return (*self.of_module(name), *self.of_sites())

    def require_active(self, searched: Sequence[str], arm: str, name: str) -> None:
        """Check that the rates are worth a search.

        Args:
            searched: The names of the sites that are searched.
            arm: The arm that searches them.
            name: What reports call the module.

        Raises:
            InputError: None of the rates changes anything.
        """
        found = self.found if self.is_trained else None
        dead = {each.site.name: each.finding for each in found.sites if each.alive is False} if found else {}
        if searched and all(site in dead for site in searched):
            raise InputError(
                f"arms must not name {arm} for a module whose rates change nothing, got model={name} with "
                f"{', '.join(searched)} ({dead[searched[0]]}), so every rate would score alike: see task=sites"
            )

    def of_sites(self) -> Iterator[str]:
        """Yield what is wrong with the sites that are searched, a line each."""
        for each in self.found.sites if self.found else ():
            said = any(part and _holds(part, each.site.name) for part in self.in_eval)
            if each.site.controllable and each.finding and not said:
                yield f"the site {each.site.name}: {each.finding}"


def check_rates(make: Callable[[], Any], batch: Any, train: Callable[[Any], bool] | None = None) -> RateCheck:
    """Try the rates of a module on one batch; sites without effect again after a few steps.

    A factor of LoRA starts at zero, so its dropout changes nothing before the first steps.

    Args:
        make: Builds the module.
        batch: As `training_step` takes it.
        train: Trains a module for `STEPS` steps and returns whether it could; None for no second look.
    """
    first = _try(make(), batch)
    if train is None or first.found is None or not first.found.dead:
        return first
    module = make()
    if not train(module):
        return replace(first, is_trained=False)
    again = _try(module, batch).found
    alive = {each.site.name: each for each in again.sites if each.alive} if again else {}
    sites = tuple(alive.get(each.site.name, each) for each in first.found.sites)
    return replace(first, found=replace(first.found, sites=sites), is_trained=again is not None)


def _try(module: Any, batch: Any) -> RateCheck:
    asleep = [name for name, part in module.named_modules() if not part.training]
    outermost = tuple(name for name in asleep if not any(_holds(other, name) for other in asleep))
    set_to_train(module)
    try:
        return RateCheck(check_dropout(module, on_device_of(module, batch)), "", outermost)
    except InputError as error:
        return RateCheck(None, str(error).partition(": ")[0], outermost)


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
