"""Optuna's sampling and pruning algorithms, by name or as objects, with a median pruner for long studies."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

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


MOST_KEPT = 64
"""For how many sets of complete trials medians are kept."""


class StudyMedianPruner(BasePruner):
    """Prunes like `optuna.pruners.MedianPruner` in a study that is minimized. Use one instance per study.

    A trial is pruned if its lowest value so far is above the median of the complete trials' values at the same step.

    Args:
        n_startup_trials: Number of complete trials before pruning starts.
        warmup_steps: Number of first steps at which no trial is pruned.
    """

    def __init__(self, n_startup_trials: int, warmup_steps: int) -> None:
        self._startup, self._warmup = n_startup_trials, warmup_steps
        self._medians: dict[tuple[int, ...], dict[int, float | None]] = {}
        """By the complete trials that are known, the median of their values at each step."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to prune a trial."""
        return self.prunes(trial, lambda: study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))

    def prunes(self, trial: FrozenTrial, complete_trials: Callable[[], Sequence[FrozenTrial]]) -> bool:
        """Do the same without a study; `complete_trials` is called only where a trial may be pruned."""
        step = trial.last_step
        if step is None or step < self._warmup:
            return False
        complete = complete_trials()
        if not complete or len(complete) < self._startup:
            return False
        finite = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
        if not finite:
            return True
        others = self._median(complete, step)
        return others is not None and min(finite) > others

    def _median(self, complete: Sequence[FrozenTrial], step: int) -> float | None:
        known = tuple([trial.number for trial in complete])
        medians = self._medians.pop(known, {})
        self._medians[known] = medians  # the newest is the last
        if len(self._medians) > MOST_KEPT:
            del self._medians[next(iter(self._medians))]
        if step not in medians:
            values = [trial.intermediate_values.get(step, math.nan) for trial in complete]
            finite = [value for value in values if not math.isnan(value)]
            medians[step] = median(finite) if finite else None
        return medians[step]


@dataclass(frozen=True)
class Pruner:
    """A pruner that the configuration can name."""

    make: Callable[[int, int, int], BasePruner]
    """Makes one from the epochs of a trial, the trials before it prunes, and the epochs before it does."""
    share: float
    """Share of the epochs that trials which may be pruned are expected to train, in (0, 1]: for forecasts."""
    title: str
    """Its name in a sentence."""


PRUNERS: Mapping[str, Pruner] = {
    "none": Pruner(lambda max_epochs, startup, warmup: NopPruner(), 1.0, "nothing is pruned"),
    "median": Pruner(lambda max_epochs, startup, warmup: StudyMedianPruner(startup, warmup), 0.65, "the median pruner"),
    "hyperband": Pruner(
        lambda max_epochs, startup, warmup: HyperbandPruner(min_resource=1, max_resource=max_epochs), 0.4, "Hyperband"
    ),
}
"""Pruners by name."""


def make_pruner(name: str, max_epochs: int, n_startup_trials: int = 5, warmup_epochs: int = 5) -> BasePruner:
    """Return the pruner with a name in `PRUNERS`."""
    with quiet_optuna():
        return PRUNERS[name].make(max_epochs, n_startup_trials, warmup_epochs)
