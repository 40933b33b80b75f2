"""Modules and functions with their own dropout code: the search for them, access to their rates, their inventory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from torch import nn

from dropsearch._compat.python_calls import as_written, can_be_shown
from dropsearch._compat.torch_modules import DropoutBase, named_parts
from dropsearch.core.records import Site
from dropsearch.dropout import unsupported
from dropsearch.dropout.ops import own_code
from dropsearch.dropout.ops.own_code import LAYER_DROP, LAYERS, OwnCode
from dropsearch.dropout.places import named_functions, names_in, static_places
from dropsearch.dropout.site_kinds import guess_kind


@dataclass(frozen=True)
class HeldRate:
    """A rate that is a number on a module with its own dropout code."""

    op: OwnCode
    attribute: str
    """Path of the attribute, such as ``drop_prob`` or ``config.layerdrop``."""
    is_whole: bool
    """Whether the module is only the operation, so that its site has the module's name."""

    @property
    def name(self) -> str:
        """Name of the number on its holder."""
        return self.attribute.rpartition(".")[2]

    def holder(self, module: nn.Module) -> Any:
        """Return the holder of the number: the module, or its ``config``."""
        return vars(module)["config"] if "." in self.attribute else module

    def site(self, path: str) -> str:
        """Return the site name for a module path."""
        return path or "model" if self.is_whole else f"{path or 'model'}:{self.attribute}"

    def rate(self, module: nn.Module) -> float:
        """Return the rate."""
        return float(vars(self.holder(module))[self.name])


def held_rates(module: nn.Module) -> tuple[HeldRate, ...]:
    """Return the rates of a module with its own dropout code; none if it uses known dropout functions."""
    kind = type(module)
    if kind.__module__.startswith("torch.") or isinstance(module, DropoutBase):
        return ()
    op, used = own_code.family_of(kind), names_in(kind)
    found: list[HeldRate] = []
    if op is not None and (op.target is not None or not static_places(kind)):
        is_whole = not static_places(kind) and next(module.children(), None) is None
        found += [HeldRate(op, name, is_whole) for name in _numbers(module, op.rates, used)[:1]]
    for prefix, holder in (("", module), ("config.", vars(module).get("config"))):
        known = {each.attribute for each in found}
        names = [name for name in _numbers(holder, LAYER_DROP, used) if name not in known]
        found += [HeldRate(LAYERS, prefix + name, is_whole=False) for name in names]
    return tuple(found)


def own_number(module: nn.Module) -> str:
    """Return the name of the rate of a module whose name indicates dropout; empty otherwise or without a rate."""
    op = own_code.family_of(type(module))
    return next(iter(_numbers(module, op.rates, names_in(type(module)))), "") if op else ""


def _numbers(holder: Any, names: Iterable[str], used: frozenset[str]) -> list[str]:
    held = getattr(holder, "__dict__", {})
    is_number = lambda value: isinstance(value, int | float) and not isinstance(value, bool)  # noqa: E731
    return [name for name in names if name in used and is_number(held.get(name))]


def without_rate(module: nn.Module) -> str:
    """Return why the rate of a module whose name indicates dropout is unknown, or an empty string."""
    kind = type(module)
    if held_rates(module) or own_code.family_of(kind) is None:
        return ""
    return (
        f"{kind.__name__} has no rate with a known name; "
        f'register it: dropsearch.register_op({kind.__name__}, rate="ATTRIBUTE")'
    )


def functions_of(model: nn.Module) -> dict[FunctionType, str]:
    """Return the plain dropout functions in a model, with the names of their rate arguments."""
    found = {*own_code.registered_functions()}
    rates: dict[FunctionType, str] = {}
    for _, module in named_parts(model):
        found.update(each for each in named_functions(type(module)) if isinstance(each, FunctionType))
        rates.update(_forward_rate(module))
    for function in found:
        if known := own_code.of_function(function):
            rates[function] = known[1]
    return rates


def _forward_rate(module: nn.Module) -> dict[FunctionType, str]:
    """Return the forward of a module that receives its rate as an argument of each call."""
    kind, op = type(module), own_code.family_of(type(module))
    if op is None or static_places(kind) or isinstance(module, DropoutBase) or held_rates(module):
        return {}
    forward = inspect.unwrap(kind.forward)
    if not can_be_shown(forward):
        return {}
    rate = own_code.rate_argument(forward, op)
    return {forward: rate} if rate else {}


@dataclass
class Scope:
    """A run of an operation with its own code; random numbers drawn in it belong to its site."""

    site: str
    depth: int
    """Depth in the modules; draws of inner modules do not belong to the operation."""
    numbers: list[tuple[Any, str, Any, Any]] = field(default_factory=list)
    """Numbers and names that are set while it runs: holder, name, old and new value."""

    def enter(self) -> None:
        """Set the numbers."""
        for holder, name, _, now in self.numbers:
            _set(holder, name, now)

    def leave(self) -> None:
        """Restore the numbers."""
        for holder, name, before, _ in reversed(self.numbers):
            _set(holder, name, before)


def _set(holder: Any, name: str, value: Any) -> None:
    vars(holder)[name] = value


def replaced(
    function: FunctionType, rate: str, args: tuple[Any, ...], kwargs: dict[str, Any], new: Callable[[float], float]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call with another rate, or unchanged if it has no rate above 0.

    `rate` names the rate argument of the function, and `new` maps the original rate to the new one.
    """
    bound = None
    with suppress(TypeError):  # the call itself raises the error
        bound = inspect.signature(as_written(function)).bind(*args, **kwargs)
    if bound is None:
        return args, kwargs
    bound.apply_defaults()
    written = bound.arguments.get(rate)
    if isinstance(written, bool) or not isinstance(written, int | float):
        return args, kwargs
    bound.arguments[rate] = new(written)
    return bound.args, bound.kwargs


@dataclass
class _Own:
    op: OwnCode | None
    layer_before: str
    is_part: bool
    rate: float = 0.0
    draws: int = 0
    """Random numbers per example, over all calls."""


class OwnSites:
    """Sites of operations with their own dropout code, recorded during a pass."""

    def __init__(self) -> None:
        self._sites: dict[str, _Own] = {}

    def known(self, site: str, op: OwnCode | None, layer_before: str, *, is_part: bool = False) -> None:
        """Record the operation of a site and the kind of the preceding layer."""
        each = self._sites.setdefault(site, _Own(op, layer_before, is_part))
        each.op = each.op or op

    def met(self, site: str, rate: float) -> None:
        """Record that the operation runs at a rate."""
        each = self._sites.setdefault(site, _Own(None, "", is_part=False))
        each.rate = rate

    def drew(self, site: str, count: int) -> None:
        """Record how many random numbers its code draws per example."""
        if site in self._sites:
            self._sites[site].draws += count

    def is_listed(self, site: str) -> bool:
        """Return whether a site is listed: a module that does more than dropout is listed only if it draws."""
        each = self._sites.get(site)
        return each is not None and (each.draws > 0 or not each.is_part)

    def kind_known(self, site: str) -> str:
        """Return the kind of a site's family; empty if it depends on the surrounding layers."""
        op = self._sites[site].op
        return op.kind if op else ""

    def site(self, name: str) -> Site:
        """Return the `Site` of a name."""
        each = self._sites[name]
        kind = self.kind_known(name) or guess_kind(name.partition(":")[0], each.layer_before)
        reason = ""
        if each.rate == 0 and each.is_part:
            reason = unsupported.AT_ZERO.format(attribute=name.replace(":", ".").removeprefix("model."))
        elif each.rate > 0 and not each.draws:
            reason = unsupported.NO_DRAWS
        return Site(name, kind, each.rate, each.draws, not reason, reason)

    def found(self) -> Iterator[Site]:
        """Yield every site."""
        return (self.site(name) for name in self._sites if self.is_listed(name))
