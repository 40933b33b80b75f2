"""Optuna's samplers and pruners by their names in the configuration."""

from __future__ import annotations

from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler

from dropsearch.study.median_pruner import SortedMedianPruner
from dropsearch.study.studies import quiet_optuna


def make_sampler(name: str, seed: int, n_startup_trials: int = 10) -> BaseSampler:
    """Make a sampler: tpe, random or gp."""
    with quiet_optuna():
        if name == "tpe":
            # multivariate: models rates that compensate each other jointly. constant_liar: prevents parallel
            # trials from proposing the same point.
            return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=n_startup_trials)
        if name == "gp":
            return GPSampler(seed=seed, n_startup_trials=n_startup_trials)
        return RandomSampler(seed=seed)


def make_pruner(name: str, max_epochs: int, n_startup_trials: int = 5, warmup_epochs: int = 3) -> BasePruner:
    """Make a pruner: none, median or hyperband."""
    with quiet_optuna():
        if name == "median":
            return SortedMedianPruner(n_startup_trials, warmup_epochs)
        if name == "hyperband":
            return HyperbandPruner(min_resource=1, max_resource=max_epochs)
        return NopPruner()
