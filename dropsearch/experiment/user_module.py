"""The module of a run: importing it, inspecting it once, and building it for each trial."""

from __future__ import annotations

import dataclasses
import inspect
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor

from dropsearch.config.schema import Config, OptimizerConfig, arguments, takes_optimizer
from dropsearch.core.errors import InputError
from dropsearch.core.global_state import reseeding_follows, seeded, working_folder_kept
from dropsearch.core.records import ARMS, ComparisonMetric, Range, Site, TrialSpec
from dropsearch.core.user_errors import USER_ERRORS, described
from dropsearch.experiment.build import Source
from dropsearch.experiment.insertion import insert, where_of
from dropsearch.experiment.params import LearningRates, programs, start
from dropsearch.experiment.scoring import (
    TestResult,
    accuracy_scores,
    check_test,
    monitored_metric,
    monitored_scores,
    validation_scores,
)
from dropsearch.experiment.targets import (
    check_names,
    given_names,
    imported,
    instantiated,
    named_arguments,
    of_data,
    takes_rates,
)
from dropsearch.stats.hodges_lehmann import FEWEST_PAIRS
from dropsearch.training.adapters.absent_sites import absent_sites, describe
from dropsearch.training.adapters.hyperparameters import (
    Route,
    accepted,
    arguments_of,
    defaults,
    routes,
    with_groups_set,
)
from dropsearch.training.adapters.layers import batchnorms, weights_at_start, with_layers, without_batchnorm
from dropsearch.training.adapters.luck import SEED_ARGUMENTS, fixed_luck
from dropsearch.training.adapters.luck import notes as luck_notes
from dropsearch.training.adapters.probe import ModuleProbe, probe
from dropsearch.training.adapters.route_check import checked_routes
from dropsearch.training.epoch_metrics import missing_monitor
from dropsearch.training.planning.memory import check_size
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.trainers import trainer_class

PROBED = TrialSpec("dropout", 0, 0, {}, lr=1e-3, weight_decay=1e-4)
"""The trial for which the module is inspected."""
SHOWN_RATE = 0.1
"""The rate of all sites while a module that takes rates is inspected; at 0 some sites may not exist."""


class TrialModules:
    """Builds the module of each trial with the searched values.

    Args:
        config: The configuration.
        source: The data.
        settings: Training settings shared by all trials.
        params: Other searched ranges by configuration key.

    Raises:
        InputError: The module cannot be built or trained, or does not log the monitored metric.
    """

    def __init__(self, config: Config, source: Source, settings: TrainerSettings, params: Mapping[str, Range]) -> None:
        self._config, self._source, self._settings, self._params = config, source, settings, params
        self._chosen = config.model
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._has_batchnorm = False
        self._by_data: Mapping[str, Any] = {}
        self._names, self._maker, own = self._taken()
        self._where = where_of(config.sites)  # after the import above, which adds the working folder to sys.path
        # Rates of inserted dropout are no constructor arguments, so the control sets all rates.
        self._rates = "" if self._where else takes_rates(self._maker_of())
        self._refuse_arguments()
        self.start: Mapping[str, Any] = start(params, self._configured(own))
        self.routes: tuple[Route, ...] = routes(self._names, [])
        if self._rates:  # such a constructor only builds layers
            for values in programs(params):
                spec = dataclasses.replace(PROBED, hyperparameters={**self.start, **values})
                check_size(partial(self._built, self._arguments(spec, self.routes)), self._chosen.name)
        first = self._specimen(self.start)
        of_trainer = set(inspect.signature(trainer_class(first)).parameters)
        check_names("trainer", arguments(config.trainer), of_trainer, "the Trainer")
        loaders = source.train_loader(PROBED.seed), source.train_loader(PROBED.seed + 1)
        starts = self._weights_at_start(PROBED.seed), self._weights_at_start(PROBED.seed + 1)
        self.scores_by_example = hasattr(first, "example_scores")
        """Whether the module provides scores of each test example for the comparison of arms."""
        self.fixed_luck = fixed_luck(*starts, loaders)
        """Sources of variation that do not depend on a trial's seed, such as ``initial weights`` or ``batch order``."""
        if config.batchnorm.replace and not self._has_batchnorm:
            raise InputError(
                f"batchnorm.replace=identity needs a module with BatchNorm, and {self._chosen.name} has none: "
                "leave it out"
            )
        self.probe: ModuleProbe = probe(first, source.for_trainer(config.seed), settings, config.sites.per_call)
        at_start = dataclasses.replace(PROBED, hyperparameters=self.start)
        self.routes = checked_routes(
            self._made,
            at_start,
            source.for_trainer(config.seed),
            settings,
            routes(self._names, self.probe.optimizers),
        )
        monitor = settings.monitor
        self.own_settings: Mapping[str, float] = {route.setting: _own_value(route, own) for route in self.routes}
        """The module's default learning rate and weight decay; NaN if it has none."""
        own = {name: value for name, value in own.items() if name not in {*self._searched(), self._rates}}
        absent = absent_sites(
            lambda changed: self._made(at_start, self.routes, changed), own, self.probe.sites, self.probe.batch
        )
        self.absent_sites = describe(absent)
        """Description of sites that exist only if an argument is above 0."""
        if config.task != "sites" and monitor.name not in self.probe.logged:
            raise InputError(missing_monitor(monitor, self.probe.logged, self.probe.elsewhere))
        if config.task == "search" and source.has_test and not self.scores_by_example:
            check_test(self._chosen.name, self.specimen(self.start), source, settings)

    def _configured(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configured values of searchable keys."""
        of_optimizer = dataclasses.asdict(self._config.optimizer) if takes_optimizer(self._config) else {}
        return {f"model.{name}": value for name, value in own.items()} | {
            f"optimizer.{name}": value for name, value in of_optimizer.items()
        }

    def _taken(self) -> tuple[set[str], Callable[..., Any], dict[str, Any]]:
        """Return the names of accepted arguments, a function that builds the module, and the configured arguments."""
        chosen: Any = self._chosen
        if chosen.made_by is not None:
            names, open_ended = accepted(chosen.made_by)
            if open_ended:
                # The effect of unnamed arguments (**kwargs) is unknown, so the optimizer is set instead.
                names |= self._named() | (set() if inspect.isclass(chosen.made_by) else {"lr", "weight_decay"})
            return names, chosen.made_by, defaults(chosen.made_by)
        target = imported(chosen._target_, "model._target_")
        given = named_arguments(chosen, target)
        names, open_ended = accepted(target)
        by_data = self._by_data = of_data(target, given, self._source)

        def build(**more: Any) -> Any:
            configured = {name: value for name, value in more.items() if name != self._rates and _is_configured(value)}
            others = {name: value for name, value in more.items() if name not in configured}
            from_file = {name: value for name, value in given.items() if name not in others}
            return instantiated(chosen._target_, {**from_file, **configured}, "model", {**by_data, **others})

        own = {**defaults(target), **given, **by_data}
        return names | (self._named() if open_ended else set()), build, own

    def _maker_of(self) -> Any:
        chosen: Any = self._chosen
        return chosen.made_by or imported(chosen._target_, "model._target_")

    @property
    def has_own_rates(self) -> bool:
        """Whether the module has its own rates if its constructor gets none."""
        return not self._rates

    def _searched(self) -> list[str]:
        """Return the names of searched arguments other than learning rate and weight decay."""
        return [key.removeprefix("model.") for key in self._params if key.startswith("model.")]

    def _named(self) -> set[str]:
        """Return the names of all configured arguments."""
        of_arms = (name for values in self._config.arm_args.values() for name in values)
        return {*self._searched(), *given_names(self._chosen), *of_arms}

    def _refuse_arguments(self) -> None:
        owner, given = self._chosen.name, arguments(self._chosen)
        check_names("model", given_names(self._chosen), self._names, owner)
        check_names("space.params.model", self._searched(), self._names, owner)
        for arm, values in self._config.arm_args.items():
            check_names(f"arm_args.{arm}", values, self._names, owner)
        for route in routes(self._names, []):
            if route.how == "argument" and route.argument in given:
                value = given[route.argument]
                raise InputError(
                    f"model.{route.argument} must be left out, because it is searched, got {value}: set "
                    f"space.{route.setting}.low={value} space.{route.setting}.high={value} or another range"
                )

    def make(self, spec: TrialSpec) -> Any:
        """Return the module of a trial; its initial weights are a function of the trial's seed.

        Raises:
            InputError: It cannot be built, is not a LightningModule, or is the same object as before.
        """
        return self._made(spec, self.routes)

    def _made(
        self, spec: TrialSpec, chosen: tuple[Route, ...], changed: Mapping[str, Any] = MappingProxyType({})
    ) -> Any:
        more = {**dict.fromkeys(self._seed_arguments(), spec.seed), **self._arguments(spec, chosen), **changed}
        with seeded(spec.seed), reseeding_follows(spec.seed), working_folder_kept():
            module = self._built(more)
        trainer_class(module)
        if module in self._seen:
            raise InputError(
                f"model={self._chosen.name} must build a new module for each trial, got the same object twice: build "
                "it inside the function"
            )
        self._seen.add(module)
        if self._config.batchnorm.replace and not ARMS[spec.arm].batchnorm:
            self._has_batchnorm = bool(batchnorms(module))
            without_batchnorm(module)
        insert(module, self._where)
        if takes_optimizer(self._config):
            spec = dataclasses.replace(spec, hyperparameters={})  # they are constructor arguments
        with_groups_set(module, spec, chosen)
        return module

    def constructor_arguments(self, spec: TrialSpec) -> dict[str, Any]:
        """Return the constructor arguments of a trial: those of the data, of its arm, and searched values."""
        seeds = dict.fromkeys(self._seed_arguments(), spec.seed)
        return {**self._by_data, **seeds, **self._arguments(spec, self.routes)}

    def _arguments(self, spec: TrialSpec, chosen: tuple[Route, ...]) -> dict[str, Any]:
        searched = spec.hyperparameters.items()
        found = {key.removeprefix("model."): value for key, value in searched if key.startswith("model.")}
        found |= {**self._of_optimizer(spec), **self._config.arm_args.get(spec.arm, {}), **arguments_of(spec, chosen)}
        return {**found, **({self._rates: dict(spec.rates)} if self._rates else {})}

    def _of_optimizer(self, spec: TrialSpec) -> dict[str, Any]:
        """Return the argument for the group `optimizer`, with searched values."""
        values = {
            key.removeprefix("optimizer."): value
            for key, value in spec.hyperparameters.items()
            if key.startswith("optimizer.")
        }
        given = arguments(self._chosen).items()
        return {k: {**dataclasses.asdict(v), **values} for k, v in given if isinstance(v, OptimizerConfig)}

    def sites(self, values: Mapping[str, Any]) -> tuple[Site, ...]:
        """Return the sites of a module with given searched values.

        Raises:
            InputError: The module cannot be built or trained.
        """
        found = self.probe.sites
        if values != self.start:
            given = self._source.for_trainer(self._config.seed)
            found = probe(self._specimen(values), given, self._settings, self._config.sites.per_call).sites
        return found if self.has_own_rates else tuple(dataclasses.replace(site, rate=0.0) for site in found)

    def _seed_arguments(self) -> list[str]:
        """Return the seed arguments of the module that the user does not set."""
        given = {*given_names(self._chosen), *self._searched()}
        return [name for name in SEED_ARGUMENTS if name in self._names and name not in given]

    def specimen(self, values: Mapping[str, Any], seed: int = PROBED.seed) -> Any:
        """Return a module for inspection, with all layers and given searched values.

        Raises:
            InputError: See `whole`.
        """
        return self._with_layers(self._specimen(values, seed), seed)

    def _specimen(self, values: Mapping[str, Any], seed: int = PROBED.seed) -> Any:
        rates = {self._rates: SHOWN_RATE} if self._rates else {}
        return self._made(dataclasses.replace(PROBED, hyperparameters=values, seed=seed), self.routes, rates)

    def _weights_at_start(self, seed: int) -> Mapping[str, Tensor]:
        module = self._specimen(self.start, seed)
        with seeded(seed), reseeding_follows(seed):
            return weights_at_start(module, self._source.for_trainer(seed), self._settings)

    def whole(self, spec: TrialSpec) -> Any:
        """Return the module of a trial after the hooks that build layers.

        Raises:
            InputError: See `make`; or a hook fails.
        """
        return self._with_layers(self.make(spec), spec.seed)

    def _with_layers(self, module: Any, seed: int) -> Any:
        with seeded(seed), reseeding_follows(seed):
            return with_layers(module, self._source.for_trainer(seed), self._settings)

    def _built(self, more: Mapping[str, Any]) -> Any:
        try:
            return self._maker(**more)
        except InputError:
            raise
        except USER_ERRORS as error:
            message = described(error)
            if isinstance(error, TypeError) and "missing" in message and inspect.isclass(self._maker):
                message += f": pass a function that builds it, lambda: {self._chosen.name}(...)"
            raise InputError(f"model={self._chosen.name} cannot be built: {message}") from error

    @property
    def batch(self) -> Any:
        """The first batch of a fit."""
        return self.probe.batch

    @property
    def logged(self) -> Mapping[str, float]:
        """Metrics that the module logs in validation, by name."""
        return self.probe.logged

    @property
    def class_name(self) -> str:
        """Dotted name of the user's class or factory function."""
        chosen: Any = self._chosen
        made_by = chosen.made_by
        if made_by is None:
            return chosen._target_
        # Without the path of its file, so that a study continues after the script is moved.
        return f"{made_by.__module__}.{getattr(made_by, '__qualname__', chosen.name)}"

    @property
    def fixed(self) -> tuple[str, ...]:
        """Those of learning rate and weight decay that are not searched, since the module does not use them."""
        return tuple(route.setting for route in self.routes if not route.searched)

    @property
    def learning_rates(self) -> LearningRates:
        """The searched learning rates."""
        space: Any = self._config.space
        own = self.own_settings["lr"] if "lr" not in self.fixed else math.nan
        return LearningRates((space.lr.low, space.lr.high), own, is_default=not space.lr.is_given)

    @property
    def comparison_metric(self) -> ComparisonMetric:
        """The comparison metric of confirmed arms: the monitored metric, on the test set if there is one."""
        if self.scores_by_example and self._source.has_test:
            return ComparisonMetric()
        found = monitored_metric(self._settings.monitor, self._source.has_test)
        return dataclasses.replace(found, loss_unit="nats") if self.scores_by_example else found

    def test_scores(self, module: Any) -> TestResult:
        """Return the monitored metric of a model on the test set, and its test accuracy, NaN if there is none.

        Raises:
            InputError: The module does not log the monitored metric on the test set.
        """
        if self.scores_by_example:
            return accuracy_scores(module, self._source)
        enough = (
            self._config.confirm.seeds >= FEWEST_PAIRS
        )  # with fewer there are no intervals, so groups are not needed
        return monitored_scores(self._chosen.name, module, self._source, self._settings, by_group=enough)

    def validation_scores(self, module: Any) -> Sequence[float] | None:
        """Return the monitored metric of a model on each group of validation examples, or None."""
        enough = self._config.confirm.seeds >= FEWEST_PAIRS and not (self.scores_by_example and self._source.has_test)
        return validation_scores(module, self._source, self._settings) if enough else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on routes of learning rate and weight decay, fixed sources of variation, and absent sites."""
        more = filter(None, (self.learning_rates.note, self.absent_sites))
        return (*(route.description for route in self.routes), *luck_notes(self.fixed_luck), *more)


def _own_value(route: Route, arguments: Mapping[str, Any]) -> float:
    """Return a module's default of a setting: that of its argument, or of its optimizer."""
    own = arguments.get(route.argument, math.nan) if route.how == "argument" else route.own
    return float(own) if isinstance(own, int | float) and not isinstance(own, bool) else math.nan


def _is_configured(value: Any) -> bool:
    """Return whether a value can be part of a configuration; groups may have a `_target_`."""
    return value is None or type(value) in (bool, int, float, str, list, dict)
