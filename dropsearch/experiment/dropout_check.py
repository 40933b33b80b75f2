"""A check that the rates of a user module have an effect, before the search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dropsearch._compat.detached_trainer import Fit
from dropsearch.core.errors import InputError
from dropsearch.dropout.tools.check import DropoutCheck, checked
from dropsearch.dropout.tools.dry_run import DryRun
from dropsearch.training.logged_steps import on_device_of, set_to_train

STEPS = 3
"""Number of training steps of an epoch before a site counts as without effect."""


@dataclass(frozen=True)
class RateCheck:
    """The effects of a module's rates in training mode, which trials use."""

    found: DropoutCheck | None
    """None if the check failed."""
    why_not: str
    in_eval: tuple[str, ...]
    """Outermost submodules in eval mode; an empty name for the whole module."""
    is_trained: bool = True
    """Whether sites without effect were checked again after a few steps."""

    def of_module(self, name: str) -> Iterator[str]:
        """Yield problems of the module as a whole, one line each."""
        yield from (_in_eval(part, name) for part in self.in_eval)
        if self.found is None:
            yield f"the effect of its rates was not checked ({self.why_not})"
        elif self.found.sites:
            yield from self.found.findings

    def notes(self, name: str) -> tuple[str, ...]:
        """Return problems of the module and of the searched sites, one line each."""
        return (*self.of_module(name), *self.of_sites())

    def require_active(self, searched: Sequence[str], arm: str, name: str) -> None:
        """Check that at least one rate has an effect."""
        dead = self.without_effect
        if searched and all(site in dead for site in searched):
            raise InputError(
                f"arms must not name {arm} for a module whose rates change nothing, got model={name} with "
                f"{', '.join(searched)} ({dead[searched[0]]}), so all rates would have the same score: see task=sites"
            )

    @property
    def without_effect(self) -> dict[str, str]:
        """Findings of the sites whose rates changed nothing, also after some training; empty if that failed."""
        sites = self.found.sites if self.found and self.is_trained else ()
        return {each.site.name: each.finding for each in sites if each.site.controllable and each.alive is False}

    def of_sites(self) -> Iterator[str]:
        """Yield problems of the searched sites, one line each."""
        for each in self.found.sites if self.found else ():
            is_in_eval = any(part and _holds(part, each.site.name) for part in self.in_eval)
            if each.site.controllable and each.finding and not is_in_eval:
                yield f"the site {each.site.name}: {each.finding}"


def check_rates(
    make: Callable[[], Any],
    batch: Any,
    train: Callable[[Any], bool] | None = None,
    epochs: int = 1,
    data: Mapping[str, Any] | None = None,
) -> RateCheck:
    """Check the rates of a module on one batch, and sites without effect again after some training, in the last epoch.

    For example, a gate opens or a loss gets a weight after the first epochs.

    Args:
        train: Trains a module for a few epochs of `STEPS` steps and returns whether that succeeded; None for no second
            check.
    """
    fit = Fit(0, epochs, data or {})
    first = _try(make(), batch, fit)
    if train is None or first.found is None or not first.found.dead:
        return first
    module = make()
    if not train(module):
        return replace(first, is_trained=False)
    again = _try(module, batch, replace(fit, epoch=epochs - 1)).found
    alive = {each.site.name: each for each in again.sites if each.alive} if again else {}
    sites = tuple(alive.get(each.site.name, each) for each in first.found.sites)
    return replace(first, found=replace(first.found, sites=sites), is_trained=again is not None)


def _try(module: Any, batch: Any, fit: Fit) -> RateCheck:
    asleep = [name for name, part in module.named_modules() if not part.training]
    outermost = tuple(name for name in asleep if not any(_holds(other, name) for other in asleep))
    set_to_train(module)
    try:
        dry_run = DryRun(module, on_device_of(module, batch), "check_dropout", fit)
        return RateCheck(checked(dry_run), "", outermost)
    except InputError as error:
        return RateCheck(None, str(error).partition(": ")[0], outermost)


def _holds(outer: str, inner: str) -> bool:
    return outer != inner and (not outer or inner.startswith(f"{outer}."))


def _in_eval(part: str, name: str) -> str:
    if part:
        return (
            f"the submodule {part} is in eval mode and stays in it, as in Lightning: nothing in it is "
            f"dropped; to train it, call self.{part}.train() in {name}"
        )
    return (
        f"the module {name} is in eval mode, but the search trains it in training mode: call module.train() before "
        "your own fits, since Lightning does not change a module's mode, so nothing would be dropped"
    )
