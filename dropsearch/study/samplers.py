"""Optuna's samplers, by name or as objects."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage

from dropsearch.core.errors import InputError
from dropsearch.study.studies import quiet_optuna


def _tpe(seed: int, n_startup_trials: int) -> BaseSampler:
    # multivariate: models rates that compensate each other jointly. constant_liar: prevents parallel trials from
    # proposing the same point.
    return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=n_startup_trials)


@dataclass(frozen=True)
class Sampler:
    """A sampler that the configuration can name."""

    make: Callable[[int, int], BaseSampler]
    """Makes one from a seed and the number of its first random trials."""
    title: str
    """Its name in a sentence."""


SAMPLERS: Mapping[str, Sampler] = {
    "tpe": Sampler(_tpe, "TPE"),
    "random": Sampler(lambda seed, startup: RandomSampler(seed=seed), "random search"),
    "gp": Sampler(lambda seed, startup: GPSampler(seed=seed, n_startup_trials=startup), "a Gaussian process"),
}
"""Samplers by name."""


def make_sampler(name: str, seed: int, n_startup_trials: int = 10) -> BaseSampler:
    """Return the sampler with a name in `SAMPLERS`."""
    with quiet_optuna():
        return SAMPLERS[name].make(seed, n_startup_trials)


_STATEFUL = ("CmaEsSampler", "GridSampler", "NSGAIISampler", "NSGAIIISampler", "QMCSampler")
"""Unsupported samplers: they store progress in the study's storage, which a search writes in batches."""


def check_objects(sampler: Any, pruner: Any, storage: Any) -> None:
    """Check objects passed instead of names."""
    for name, given, kind in (("sampler", sampler, BaseSampler), ("pruner", pruner, BasePruner)):
        if not isinstance(given, str | kind | None):
            raise InputError(
                f"{name} must be a name or an object of optuna.{name}s, got {given!r}: for example {name}="
                + ("optuna.samplers.TPESampler(seed=0)" if name == "sampler" else "optuna.pruners.NopPruner()")
            )
    if not isinstance(storage, str | BaseStorage | None):
        raise InputError(
            f"storage must be an Optuna URL, a path or an object of optuna.storages, got {storage!r}: for example "
            'storage="sqlite:///study.db"'
        )
    if type(sampler).__name__ in _STATEFUL:
        raise InputError(
            f"sampler must not keep its progress in the storage, got {type(sampler).__name__}: use TPESampler, "
            "RandomSampler, GPSampler, or a subclass of BaseSampler that learns from the trials alone"
        )


def sampler_factory(sampler: str | BaseSampler, n_startup_trials: int) -> Callable[[int], BaseSampler]:
    """Return a factory of samplers from a trial's seed.

    A sampler object is copied once, so that studies do not share it. The copy proposes all trials and draws from its
    own random state.
    """
    if isinstance(sampler, str):
        return lambda seed: make_sampler(sampler, seed, n_startup_trials)
    mine = copy.deepcopy(sampler)
    return lambda seed: mine
