"""Builds the module of each trial from the configuration and the searched values, with inserted dropout."""

from __future__ import annotations

import dataclasses
import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from hydra.utils import get_object
from torch import nn

from dropsearch.config.schema import Config, OptimizerConfig, SitesConfig, arguments, takes_optimizer
from dropsearch.core.errors import InputError
from dropsearch.core.global_state import reseeding_follows, seeded, working_folder_kept
from dropsearch.core.records import ARMS, Range, TrialSpec
from dropsearch.core.user_errors import USER_ERRORS, described
from dropsearch.dropout.tools.insert import AFTER_ACTIVATION, Where, inserted_dropout, put_behind, remove_dropout
from dropsearch.dropout.tools.set_rates import set_rates
from dropsearch.experiment.build import Source
from dropsearch.experiment.params import start
from dropsearch.experiment.targets import (
    check_names,
    given_names,
    imported,
    instantiated,
    named_arguments,
    of_data,
    takes_rates,
)
from dropsearch.training.adapters.hyperparameters import (
    Route,
    accepted,
    arguments_of,
    defaults,
    routes,
    with_groups_set,
)
from dropsearch.training.adapters.layers import batchnorms, put_back, without_batchnorm
from dropsearch.training.adapters.luck import seed_arguments
from dropsearch.training.trainers import trainer_class


class ModuleBuilder:
    """Builds modules with the searched values of a trial.

    Attributes:
        names: The names of accepted arguments.
        own: The arguments of a module without searched values, by name.
        start: The first value of each range in `params`: the configured one where there is one.
        of_data: The arguments that the data give, by name.
        rates: The name of the argument that takes the rates of a trial; empty if the dropout control sets all rates.
        has_batchnorm: Whether a module that was built had BatchNorm, which `batchnorm.replace` took out.
    """

    def __init__(self, config: Config, source: Source, params: Mapping[str, Range]) -> None:
        self._config, self._source, self._params = config, source, params
        self._chosen: Any = config.model
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self.has_batchnorm = False
        self.of_data: Mapping[str, Any] = {}
        self.names, self._maker, self.own = self._taken()
        self._where = where_of(config.sites)  # after the import above, which adds the working folder to sys.path
        # Rates of inserted dropout are no constructor arguments, so the control sets all rates.
        self.rates = "" if self._where else takes_rates(self.target)
        self._refuse_arguments()
        self.start: Mapping[str, Any] = start(params, self._configured())

    @property
    def class_name(self) -> str:
        """Dotted name of the user's class or factory function."""
        made_by = self._chosen.made_by
        if made_by is None:
            return self._chosen._target_
        # Without the path of its file, so that a study continues after the script is moved.
        return f"{made_by.__module__}.{getattr(made_by, '__qualname__', self._chosen.name)}"

    @property
    def target(self) -> Any:
        """The user's class or factory function."""
        return self._chosen.made_by or imported(self._chosen._target_, "model._target_")

    def _taken(self) -> tuple[set[str], Callable[..., Any], dict[str, Any]]:
        """Return the names of accepted arguments, a function that builds the module, and the configured arguments."""
        chosen = self._chosen
        if chosen.made_by is not None:
            names, open_ended = accepted(chosen.made_by)
            if open_ended:
                # The effect of unnamed arguments (**kwargs) is unknown, so the optimizer is set instead.
                names |= self._named() | (set() if inspect.isclass(chosen.made_by) else {"lr", "weight_decay"})
            return names, chosen.made_by, defaults(chosen.made_by)
        target = self.target
        given = named_arguments(chosen, target)
        names, open_ended = accepted(target)
        of_source = self.of_data = of_data(target, given, self._source)

        def build(**more: Any) -> Any:
            configured = {name: value for name, value in more.items() if name != self.rates and _is_configured(value)}
            others = {name: value for name, value in more.items() if name not in configured}
            from_file = {name: value for name, value in given.items() if name not in others}
            return instantiated(chosen._target_, {**from_file, **configured}, "model", {**of_source, **others})

        own = {**defaults(target), **given, **of_source}
        return names | (self._named() if open_ended else set()), build, own

    def _configured(self) -> dict[str, Any]:
        """Return the configured values of searchable keys."""
        of_optimizer = dataclasses.asdict(self._config.optimizer) if takes_optimizer(self._config) else {}
        return {f"model.{name}": value for name, value in self.own.items()} | {
            f"optimizer.{name}": value for name, value in of_optimizer.items()
        }

    def searched(self) -> list[str]:
        """Return the names of searched arguments other than learning rate and weight decay."""
        return [key.removeprefix("model.") for key in self._params if key.startswith("model.")]

    def _named(self) -> set[str]:
        """Return the names of all configured arguments."""
        of_arms = (name for values in self._config.arm_args.values() for name in values)
        return {*self.searched(), *given_names(self._chosen), *of_arms}

    def _refuse_arguments(self) -> None:
        owner, given = self._chosen.name, arguments(self._chosen)
        check_names("model", given_names(self._chosen), self.names, owner)
        check_names("space.params.model", self.searched(), self.names, owner)
        for arm, values in self._config.arm_args.items():
            check_names(f"arm_args.{arm}", values, self.names, owner)
        for route in routes(self.names, []):
            if route.how == "argument" and route.argument in given:
                value = given[route.argument]
                raise InputError(
                    f"model.{route.argument} must be left out, because it is searched, got {value}: set "
                    f"space.{route.setting}.low={value} space.{route.setting}.high={value} or another range"
                )

    def build(
        self, spec: TrialSpec, chosen: tuple[Route, ...], changed: Mapping[str, Any] = MappingProxyType({})
    ) -> Any:
        """Return the module of a trial; its initial weights are a function of the trial's seed.

        Args:
            chosen: How learning rate and weight decay reach the module.

        Raises:
            InputError: It cannot be built, is not a LightningModule, or is the same object as before.
        """
        more = {**self._seeds(spec), **self.trial_arguments(spec, chosen), **changed}
        with seeded(spec.seed), reseeding_follows(spec.seed), working_folder_kept():
            module = self.made_of(more)
        trainer_class(module)
        if module in self._seen:
            raise InputError(
                f"model={self._chosen.name} must build a new module for each trial, got the same object twice: build "
                "it inside the function"
            )
        self._seen.add(module)
        if self._config.batchnorm.replace and not ARMS[spec.arm].batchnorm:
            self.has_batchnorm = bool(batchnorms(module))
            without_batchnorm(module)
        insert(module, self._where)
        if takes_optimizer(self._config):
            spec = dataclasses.replace(spec, hyperparameters={})  # they are constructor arguments
        with_groups_set(module, spec, chosen)
        return module

    def made_of(self, given: Mapping[str, Any]) -> Any:
        """Call the user's class or function with constructor arguments."""
        try:
            return self._maker(**given)
        except InputError:
            raise
        except USER_ERRORS as error:
            message = described(error)
            if isinstance(error, TypeError) and "missing" in message and inspect.isclass(self._maker):
                message += f": pass a function that builds it, lambda: {self._chosen.name}(...)"
            raise InputError(f"model={self._chosen.name} cannot be built: {message}") from error

    def _seeds(self, spec: TrialSpec) -> dict[str, int]:
        """Return the trial's seed for each seed argument of the module that the user does not set."""
        return seed_arguments(self.names, {*given_names(self._chosen), *self.searched()}, spec.seed)

    def trial_arguments(self, spec: TrialSpec, chosen: tuple[Route, ...]) -> dict[str, Any]:
        """Return the constructor arguments that the arm and the searched values of a trial set."""
        found = below("model.", spec.hyperparameters)
        found |= {**self._of_optimizer(spec), **self._config.arm_args.get(spec.arm, {}), **arguments_of(spec, chosen)}
        return {**found, **({self.rates: dict(spec.rates)} if self.rates else {})}

    def _of_optimizer(self, spec: TrialSpec) -> dict[str, Any]:
        """Return the argument for the group `optimizer`, with searched values."""
        values, given = below("optimizer.", spec.hyperparameters), arguments(self._chosen).items()
        return {k: {**dataclasses.asdict(v), **values} for k, v in given if isinstance(v, OptimizerConfig)}


def below(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of keys with a prefix, under what follows it."""
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def _is_configured(value: Any) -> bool:
    """Return whether a value can be part of a configuration; groups may have a `_target_`."""
    return value is None or type(value) in (bool, int, float, str, list, dict)


def where_of(config: SitesConfig) -> Where | None:
    """Return `sites.insert` with dotted names converted to types; None if nothing is inserted."""
    given = config.insert if config.where is None else config.where
    if given is None:
        return None
    listed = [given] if isinstance(given, str | type) else list(given)
    return AFTER_ACTIVATION if listed == [AFTER_ACTIVATION] else [_type(each) or each for each in listed]


def _type(word: Any) -> type[nn.Module] | None:
    """Return the type with a dotted name; None for names and patterns of submodules."""
    if not isinstance(word, str) or "." not in word or not word.rpartition(".")[2][:1].isupper():
        return None
    try:
        found = get_object(word)
    except Exception:  # the name may be that of a submodule, and an import may raise anything
        return None
    return found if inspect.isclass(found) and issubclass(found, nn.Module) else None


def insert(module: nn.Module, where: Where | None) -> None:
    """Insert dropout at rate 0 into the module of a trial."""
    if where is not None:
        put_behind(module, where, 0.0, "sites.insert")


def apply(module: nn.Module, where: Where | None, rates: Any, *, batchnorm: bool = True) -> None:
    """Change a module as a search did: remove BatchNorm if requested, insert dropout, and set rates.

    Raises:
        InputError: The module lacks a site; it is unchanged then.
    """
    taken = [] if batchnorm else without_batchnorm(module)  # first, since dropout may be inserted after its replacement
    fresh = not inserted_names(module)
    try:
        if fresh:
            insert(module, where)
        set_rates(module, rates)
    except BaseException:
        if fresh:
            remove_dropout(module)
        put_back(taken)
        raise


def inserted_names(module: nn.Module) -> Sequence[str]:
    """Return the names of the submodules with inserted dropout."""
    return [name for name, part in module.named_modules() if inserted_dropout(part)]
