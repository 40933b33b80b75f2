"""Routes by which a trial's learning rate and weight decay reach a user module."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from dropsearch._compat.lightning import PREFIXES
from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialSpec
from dropsearch.core.records.trials import OPTIMIZER_OPTIONS
from dropsearch.training.adapters.learning_rate import optimizers_of, reference, with_learning_rate

ARGUMENTS: Mapping[str, tuple[str, ...]] = {"lr": ("lr", "learning_rate"), "weight_decay": ("weight_decay",)}
NAMES = {"lr": "learning rate", "weight_decay": "weight decay"}


@dataclass(frozen=True)
class Route:
    """The route of one setting to a module."""

    setting: str
    """lr or weight_decay."""
    how: str
    """argument, groups, or nothing; with nothing, the setting is not searched."""
    argument: str = ""
    own: float = math.nan
    """The module's default value."""

    @property
    def searched(self) -> bool:
        """Whether the setting is searched."""
        return self.how != "nothing"

    used: tuple[float, float] | None = None
    """Smallest and largest value of the optimizer steps if they ignore the setting; None if they follow it."""

    @property
    def description(self) -> str:
        """Description of the route."""
        setting = f"the {NAMES.get(self.setting, self.setting)}"
        if self.used is not None:
            low, high = self.used
            steps = f"at {low:.4g}" if low == high else f"at {low:.4g} to {high:.4g}"
            return f"{setting} is not searched: the optimizers step {steps} whatever is set"
        if self.how == "argument":
            return f"{setting} is set by the argument {self.argument}"
        if self.how == "groups":
            return f"{setting} is set in the optimizer's parameter groups"
        return f"{setting} is not searched: neither the module nor its optimizer has such an option"


def accepted(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """Return the argument names of a class or function, and whether it also accepts any other argument.

    A class with ``**kwargs`` also accepts the arguments of its base class, and any other argument if the last base
    class has ``**kwargs``.
    """
    names: set[str] = set()
    others = False
    for parameters in _parameters(function):
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names |= {each.name for each in parameters or () if each.kind in named}
        others = _is_open(parameters)
    return names - {"self"}, others


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the default values of the arguments of a class or function."""
    found: dict[str, Any] = {}
    for parameters in _parameters(function):
        found = {each.name: each.default for each in parameters or () if each.default is not each.empty} | found
    return found


def _parameters(function: Callable[..., Any]) -> Iterator[list[inspect.Parameter] | None]:
    """Yield the parameters of a function, or of a class's constructors as long as each has ``**kwargs``.

    They are None where there is no signature.
    """
    owners = function.__mro__ if inspect.isclass(function) else ()
    for owner in owners or (None,):
        if owner is not None and ("__init__" not in vars(owner) or owner is object):
            continue
        if owner is not None and owner.__module__.startswith((*PREFIXES, "torch.")):
            return
        try:
            parameters = list(inspect.signature(owner.__init__ if owner else function).parameters.values())
        except (TypeError, ValueError):
            parameters = None
        yield parameters
        if not _is_open(parameters):
            return


def _is_open(parameters: list[inspect.Parameter] | None) -> bool:
    return parameters is None or any(each.kind is each.VAR_KEYWORD for each in parameters)


def routes(names: set[str], optimizers: list[Optimizer]) -> tuple[Route, ...]:
    """Return how learning rate and weight decay reach a module with these arguments and optimizers."""
    return tuple(_route(setting, names, optimizers) for setting in ARGUMENTS)


def _route(setting: str, names: set[str], optimizers: list[Optimizer]) -> Route:
    own = reference(optimizers, setting)
    argument = next((name for name in ARGUMENTS[setting] if name in names), "")
    if argument:
        return Route(setting, "argument", argument, own)
    if math.isfinite(own) and (setting == "weight_decay" or own > 0):
        return Route(setting, "groups", own=own)
    return Route(setting, "nothing", own=own)


def arguments_of(spec: TrialSpec, chosen: tuple[Route, ...]) -> dict[str, float]:
    """Return the constructor arguments with a trial's learning rate and weight decay.

    Settings that are not searched have the module's default.
    """
    values = {"lr": spec.lr, "weight_decay": spec.weight_decay}
    given = {
        route.argument: values[route.setting] if math.isfinite(values[route.setting]) else route.own
        for route in chosen
        if route.argument
    }
    return {name: value for name, value in given.items() if math.isfinite(value)}


def with_groups_set(module: Any, spec: TrialSpec, chosen: tuple[Route, ...]) -> None:
    """Make `module.configure_optimizers` return optimizers with a trial's learning rate and weight decay.

    The first group gets the trial's learning rate and the others keep their ratio to it; see `with_learning_rate`.
    Weight decay is set on groups that have some; if only some groups do, the others stay exempt. Searched
    `OPTIMIZER_OPTIONS` are set on every group that has them.

    Raises:
        InputError: Raised by `configure_optimizers`: no group has such an option, or a schedule changes it.
    """
    by_groups = {route.setting for route in chosen if route.how == "groups"}
    options = {
        key.removeprefix("optimizer."): spec.hyperparameters[key]
        for key in OPTIMIZER_OPTIONS
        if key in spec.hyperparameters
    }
    if not by_groups and not options:
        return
    configure = module.configure_optimizers

    def configure_optimizers() -> Any:
        answer = with_learning_rate(configure, spec.lr) if "lr" in by_groups else configure()
        found = optimizers_of(answer)
        if "weight_decay" in by_groups:
            _set_weight_decay(found, spec.weight_decay)
        for name, value in options.items():
            _set_option(found, name, value)
        return answer

    # Set on the instance, since the user's class must not change.
    module.__dict__["configure_optimizers"] = configure_optimizers


def _set_weight_decay(optimizers: list[Optimizer], value: float) -> None:
    groups = [group for optimizer in optimizers for group in optimizer.param_groups if "weight_decay" in group]
    decayed = [group for group in groups if float(group["weight_decay"]) > 0] or groups
    for group in decayed:
        group["weight_decay"] = value


def _set_option(optimizers: list[Optimizer], name: str, value: Any) -> None:
    groups = [group for optimizer in optimizers for group in optimizer.param_groups if name in group]
    if not groups:
        kinds = ", ".join(type(optimizer).__name__ for optimizer in optimizers)
        raise InputError(f"space.params must leave out optimizer.{name}, which {kinds} does not have")
    if name != "nesterov" and any("max_momentum" in group for group in groups):
        raise InputError(f"space.params must leave out optimizer.{name}, because the module's schedule changes it")
    for group in groups:
        group[name] = tuple(value) if name == "betas" else value
