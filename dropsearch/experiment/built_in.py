"""The built-in networks as the modules of trials."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from dropsearch.config.params import applied
from dropsearch.config.schema import Config, plain
from dropsearch.core.errors import InputError
from dropsearch.core.records import ARMS, ComparisonMetric, Range, Site, TrialSpec
from dropsearch.datasets.data_module import TensorDataModule
from dropsearch.dropout.sites import dropout_sites
from dropsearch.experiment.build import Source
from dropsearch.experiment.params import start
from dropsearch.experiment.scoring import TestResult, accuracy_scores
from dropsearch.models import Classifier, build_net
from dropsearch.models.build import NETS
from dropsearch.training.logged_steps import captured_logs
from dropsearch.training.protocols import TrainerSettings

NET = "net."
"""Where `Classifier` keeps its network: sites are named from the Lightning module, rates given to the net."""


class BuiltInModules:
    """Builds a classifier around a built-in network for each trial.

    Args:
        config: The configuration.
        source: The data, which decides the shape of the input and the number of classes.
        settings: What all trials share.
        params: What else is searched, by configuration key.
    """

    has_own_rates = False
    fixed_luck: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    absent_sites = ""
    logged: Mapping[str, float] = MappingProxyType({"val_loss": math.nan, "val_acc": math.nan})
    comparison_metric = ComparisonMetric()

    def __init__(self, config: Config, source: Source, settings: TrainerSettings, params: Mapping[str, Range]) -> None:
        assert isinstance(source, TensorDataModule), "checked with the configuration"
        self._config, self._source = config, source
        self._on_cpu = settings.accelerator == "cpu"
        groups = plain(config)
        configured = {
            f"{group}.{key}": value for group in ("model", "optimizer") for key, value in groups[group].items()
        }
        self.start: Mapping[str, Any] = start(params, configured)

    @property
    def class_name(self) -> str:
        """The dotted name of the network's class."""
        net = NETS[self._config.model.name]
        return f"{net.__module__}.{net.__qualname__}"

    @property
    def batch(self) -> Any:
        """The first batch of the training set."""
        return next(iter(self._source.train_loader(self._config.seed)))

    def make(self, spec: TrialSpec) -> Classifier:
        """Return the module of a trial; its initial weights are a function of the trial's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(spec.seed)  # `torch.manual_seed` would seed the GPUs too
            return self._classifier(applied(self._config, spec.hyperparameters), spec)

    def _classifier(self, config: Config, spec: TrialSpec) -> Classifier:
        options, source = dataclasses.asdict(config.model), self._source
        if ARMS[spec.arm].batchnorm:
            options["norm"] = "batch"
        net = build_net(
            {
                **options,
                "input_shape": list(source.input_shape),
                "layout": source.layout,
                "classes": source.classes,
                "dropout": {site.removeprefix(NET): rate for site, rate in spec.rates.items()},
            }
        )
        if self._on_cpu:
            # A CPU's pooling and convolutions then go through memory in order; these nets never `view` an activation.
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = config.optimizer
        choices: Any = {"optimizer": optimizer.name, "schedule": optimizer.schedule}  # checked with the configuration
        return Classifier(
            net,
            **choices,
            lr=spec.lr,
            weight_decay=spec.weight_decay,
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
            betas=(optimizer.betas[0], optimizer.betas[1]),
        )

    def whole(self, spec: TrialSpec) -> Classifier:
        """Return the module of a trial, all of whose layers its constructor builds."""
        return self.make(spec)

    def specimen(self, values: Mapping[str, Any]) -> Any:
        """Return a module to look at, with these values of what else is searched.

        Raises:
            InputError: It cannot be built.
        """
        source = self._source
        try:
            spec = TrialSpec("dropout", 0, self._config.seed, {}, lr=1e-3, weight_decay=0.0, hyperparameters=values)
            module = self.make(spec)
        except (
            InputError,
            ValueError,
            TypeError,
            RuntimeError,
            MemoryError,
        ) as error:  # the last two where memory ends
            if isinstance(error, InputError) and not values:
                raise
            name, reason = self._config.model.name, str(error).splitlines()[0]
            raise InputError(f"model={name} cannot be built for data={source.name}: {reason}") from error
        module.to(next(iter(source.train_loader(0)))[0].device).train()
        for part in module.modules():  # attention has a site only where its rate is above 0
            if isinstance(getattr(part, "dropout", None), float):
                part.dropout = 0.1  # type: ignore[assignment]
        return module

    def sites(self, values: Mapping[str, Any]) -> tuple[Site, ...]:
        """Return the sites of a module with these values, in the order of a forward pass."""
        module, batch = self.specimen(values), self.batch
        with torch.no_grad(), captured_logs(module):
            return dropout_sites(module, lambda: module.training_step(batch, 0))

    def constructor_arguments(self, spec: TrialSpec) -> dict[str, Any]:
        """Return nothing: a checkpoint holds the arguments of the network."""
        return {}

    def test_scores(self, module: Any) -> TestResult:
        """Return what a model scores on the test set, with its result on each example."""
        return accuracy_scores(module, self._source)

    def validation_scores(self, module: Any) -> Sequence[float] | None:
        """Return None: every built-in data set has a test set."""
        return None
