"""The module of a run, inspected once: its sites, metrics and routes, and the scores of its confirmed models."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from torch import Tensor

from dropsearch.analysis.measures.passes import operations
from dropsearch.config.schema import Config, arguments
from dropsearch.core.errors import InputError
from dropsearch.core.global_state import reseeding_follows, seeded
from dropsearch.core.records import ARMS, ComparisonMetric, Range, Site, TrialSpec
from dropsearch.experiment.build import Source
from dropsearch.experiment.module_builder import ModuleBuilder
from dropsearch.experiment.params import LearningRates, programs
from dropsearch.experiment.scoring import (
    TestResult,
    accuracy_scores,
    check_test,
    monitored_metric,
    monitored_scores,
    validation_scores,
)
from dropsearch.experiment.targets import check_names, is_plain
from dropsearch.experiment.user_code import code_digests
from dropsearch.report.numbers import shorten
from dropsearch.stats.paired_tests import FEWEST_PAIRS
from dropsearch.training.adapters.absent_sites import absent_sites, describe, describe_rates, rates_set_by
from dropsearch.training.adapters.hyperparameters import Route, routes
from dropsearch.training.adapters.layers import weights_at_start, with_layers
from dropsearch.training.adapters.luck import described_weights, fixed_luck
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
    """The modules of the trials of a run, and what one inspection of them found."""

    def __init__(self, config: Config, source: Source, settings: TrainerSettings, params: Mapping[str, Range]) -> None:
        self._config, self._source, self._settings = config, source, settings
        self._builder = builder = ModuleBuilder(config, source, params)
        self.start, self.class_name = builder.start, builder.class_name
        self.has_own_rates = not builder.rates
        """Whether the module has its own rates if its constructor gets none."""
        self.routes: tuple[Route, ...] = routes(builder.names, [])
        if builder.rates:  # such a constructor only builds layers
            for values in programs(params):
                spec = dataclasses.replace(PROBED, hyperparameters={**self.start, **values})
                make = partial(builder.made_of, builder.trial_arguments(spec, self.routes))
                check_size(make, config.model.name)
        first = self._specimen(self.start)
        of_trainer = set(inspect.signature(trainer_class(first)).parameters)
        check_names("trainer", arguments(config.trainer), of_trainer, "the Trainer")
        loaders = source.train_loader(PROBED.seed), source.train_loader(PROBED.seed + 1)
        starts = self._weights_at_start(PROBED.seed), self._weights_at_start(PROBED.seed + 1)
        self.scores_by_example = hasattr(first, "example_scores")
        """Whether the module provides scores of each test example for the comparison of arms."""
        self.weights = described_weights(starts[0])
        """Number of the module's weights, and a checksum of their names and shapes."""
        self.fixed_luck = fixed_luck(*starts, loaders)
        """Sources of variation that do not depend on a trial's seed, such as ``initial weights`` or ``batch order``."""
        if config.batchnorm.replace and not builder.has_batchnorm:
            raise InputError(
                f"batchnorm.replace=identity needs a module with BatchNorm, and {config.model.name} has none: "
                "leave it out"
            )
        self.probe: ModuleProbe = probe(first, source.for_trainer(config.seed), settings, config.sites.per_call)
        self.batch = self.probe.batch
        """The first batch of a fit."""
        given = settings.trainer()
        callbacks = given.get("callbacks") or ()
        callbacks = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
        self.code = code_digests([builder.target, first, *source.parts, *callbacks, given])
        """Digests of the user code of module, data and Trainer arguments, by qualified name."""
        at_start = dataclasses.replace(PROBED, hyperparameters=self.start)
        found = routes(builder.names, self.probe.optimizers)
        self.routes = checked_routes(builder.build, at_start, source.for_trainer(config.seed), settings, found)
        monitor = settings.monitor
        self.own_settings: Mapping[str, float] = {
            route.setting: _own_value(route, builder.own) for route in self.routes
        }
        """The module's default learning rate and weight decay; NaN if it has none."""
        own = {name: value for name, value in builder.own.items() if name not in {*builder.searched(), builder.rates}}
        absent = absent_sites(
            lambda changed: builder.build(at_start, self.routes, changed), own, self.probe.sites, self.probe.batch
        )
        self.absent_sites = describe(absent)
        """Description of sites that exist only if an argument is above 0."""
        ends = {name: params[f"model.{name}"].ends for name in builder.searched()} if self.has_own_rates else {}
        rates = rates_set_by(lambda changed: builder.build(at_start, self.routes, changed), ends, self.probe.batch)
        self.idle_arguments = describe_rates(rates)
        """Description of searched arguments that set rates, which the search sets itself."""
        if config.task != "sites" and monitor.name not in self.probe.logged:
            raise InputError(missing_monitor(monitor, self.probe.logged, self.probe.elsewhere))
        if config.task == "search" and source.has_test and not self.scores_by_example:
            check_test(config.model.name, self.specimen(self.start), source, settings)

    @cached_property
    def operations(self) -> float | None:
        """Floating-point operations per example; None if they cannot be counted."""
        try:
            *inputs, _ = self.batch
            module = self.specimen(self.start).to(inputs[0].device).eval()
            return operations(module, [part[:1] for part in inputs])
        except Exception:  # modules and batches of the user may be anything
            return None

    def make(self, spec: TrialSpec) -> Any:
        """Return the module of a trial; its initial weights are a function of the trial's seed.

        Raises:
            InputError: It cannot be built, is not a LightningModule, or is the same object as before.
        """
        return self._builder.build(spec, self.routes)

    @property
    def data_arguments(self) -> Mapping[str, Any]:
        """The constructor arguments that the data give, as far as they are plain values."""
        return {name: value for name, value in self._builder.of_data.items() if is_plain(value)}

    def are_alike(self, arm: str, other: str) -> bool:
        """Return whether two arms build the same module, apart from dropout and BatchNorm, by their `arm_args`."""
        return not self._unlike(arm, other)

    def own_arguments(self) -> dict[str, str]:
        """Return, by arm, the arguments that differ from those of the arm without dropout beside it, ``width=32``."""
        arms = self._config.arms
        plain = {name: "batchnorm" if ARMS[name].batchnorm else "none" for name in arms}
        own = {name: self._unlike(name, plain[name]) for name in arms if plain[name] in arms}
        return {
            arm: ", ".join(f"{k}={shorten(str(v), 40)}" for k, v in found.items())
            for arm, found in own.items()
            if found
        }

    def _unlike(self, arm: str, other: str) -> dict[str, Any]:
        """Return the arguments of an arm's module that those of another arm differ from."""
        args, own = self._config.arm_args, self._builder.own
        given, others = {**own, **args.get(arm, {})}, {**own, **args.get(other, {})}
        names = {**args.get(arm, {}), **args.get(other, {})}
        return {name: given.get(name) for name in names if repr(given.get(name)) != repr(others.get(name))}

    def sites(self, values: Mapping[str, Any]) -> tuple[Site, ...]:
        """Return the sites of a module with given searched values."""
        found = self.probe.sites
        if values != self.start:
            given = self._source.for_trainer(self._config.seed)
            found = probe(self._specimen(values), given, self._settings, self._config.sites.per_call).sites
        return found if self.has_own_rates else tuple(dataclasses.replace(site, rate=0.0) for site in found)

    def specimen(self, values: Mapping[str, Any]) -> Any:
        """Return a module for inspection, with all layers and given searched values."""
        return self._with_layers(self._specimen(values), PROBED.seed)

    def _specimen(self, values: Mapping[str, Any], seed: int = PROBED.seed) -> Any:
        rates = {self._builder.rates: SHOWN_RATE} if self._builder.rates else {}
        spec = dataclasses.replace(PROBED, hyperparameters=values, seed=seed)
        return self._builder.build(spec, self.routes, rates)

    def _weights_at_start(self, seed: int) -> Mapping[str, Tensor]:
        module = self._specimen(self.start, seed)
        with seeded(seed), reseeding_follows(seed):
            return weights_at_start(module, self._source.for_trainer(seed), self._settings)

    def whole(self, spec: TrialSpec) -> Any:
        """Return the module of a trial after the hooks that build layers."""
        return self._with_layers(self.make(spec), spec.seed)

    def _with_layers(self, module: Any, seed: int) -> Any:
        with seeded(seed), reseeding_follows(seed):
            return with_layers(module, self._source.for_trainer(seed), self._settings)

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
        """Return the monitored metric of a model on the test set, and its test accuracy, NaN if there is none."""
        if self.scores_by_example:
            return accuracy_scores(module, self._source)
        enough = self._config.confirm.seeds >= FEWEST_PAIRS  # with fewer there are no intervals, so no groups either
        return monitored_scores(self._config.model.name, module, self._source, self._settings, by_group=enough)

    def validation_scores(self, module: Any) -> Sequence[float] | None:
        """Return the monitored metric of a model on each group of validation examples, or None."""
        enough = self._config.confirm.seeds >= FEWEST_PAIRS and not (self.scores_by_example and self._source.has_test)
        return validation_scores(module, self._source, self._settings) if enough else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on routes of learning rate and weight decay, fixed sources of variation, and absent sites."""
        more = filter(None, (self.learning_rates.note, self.absent_sites, self.idle_arguments))
        return (*(route.description for route in self.routes), *luck_notes(self.fixed_luck), *more)


def _own_value(route: Route, arguments: Mapping[str, Any]) -> float:
    """Return a module's default of a setting: that of its argument, or of its optimizer."""
    own = arguments.get(route.argument, math.nan) if route.how == "argument" else route.own
    return float(own) if isinstance(own, int | float) and not isinstance(own, bool) else math.nan
