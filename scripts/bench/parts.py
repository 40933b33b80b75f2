"""The parts of a workload that train outside a study: data on the device, modules and trials."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from given_trials import SpecFeed
from workloads import QUICK, WORKLOADS, overrides

from dropsearch.config.compose import compose_overrides
from dropsearch.config.schema import Config
from dropsearch.core.records import Site, TrialSpec
from dropsearch.experiment import engines
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.training.planning.plan import Plan
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.trials import VectorizedTrials


@dataclass(frozen=True)
class Parts:
    """A workload, ready to be trained; on a CPU by one thread, as each of our processes trains."""

    name: str
    context: ExperimentContext

    @classmethod
    def load(cls, name: str, *more: str, quick: bool = False) -> Parts:
        """Compose the workload's configuration with `more` overrides, and load its data."""
        config = compose_overrides([*overrides(name, tempfile.gettempdir()), *(QUICK if quick else ()), *more])
        context = build_context(config)
        if context.device.type == "cpu":
            torch.set_num_threads(1)
        return cls(name, context)

    @property
    def config(self) -> Config:
        """Its configuration."""
        return self.context.config

    @property
    def source(self) -> Any:
        """Its data."""
        return self.context.source

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites of its model."""
        return self.context.sites

    @property
    def device(self) -> torch.device:
        """Where training runs."""
        return self.context.device

    @property
    def make_module(self) -> Callable[[TrialSpec], Any]:
        """What builds a trial's module."""
        return self.context.make_module

    @property
    def settings(self) -> TrainerSettings:
        """What all trials share."""
        return self.context.settings

    @property
    def epochs(self) -> int:
        """Epochs of a trial."""
        return self.config.trainer.max_epochs

    @property
    def steps(self) -> int:
        """Training steps of an epoch."""
        return len(self.source.train_loader(0))

    def plan(self) -> Plan:
        """Return how dropsearch would train the workload."""
        return engines.plan(self.context)

    def vectorized(self, width: int) -> VectorizedTrials:
        """Return `width` trials that train vectorized."""
        source = RowSource(self.make_module, self.source, self.settings, SpecFeed(self.specs(width)))
        return VectorizedTrials(source, width)

    def specs(self, count: int) -> list[TrialSpec]:
        """Return `count` trials, drawn from the ranges of the search: always the same ones, all rates above 0."""
        draw = random.Random(0)
        names = [site.name for site in self.sites if site.controllable]
        return [
            TrialSpec(
                WORKLOADS[self.name].arm,
                number,
                seed=number,
                rates={name: draw.uniform(0.05, 0.9) for name in names},
                lr=3e-4 * 100 ** draw.random(),
                weight_decay=1e-6 * 1e5 ** draw.random(),
            )
            for number in range(count)
        ]


def step_seconds(trials: VectorizedTrials, seconds: float) -> float:
    """Return the median time of a vectorized step, over about `seconds` and at least three steps."""
    return trials.seconds_per_step(max(3, int(seconds / trials.seconds_per_step(1))))
