"""First points of a search that are the best configurations of an earlier study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from dropsearch.core.errors import InputError
from dropsearch.core.records import ARMS, Arm, TrialResult, TrialSpec
from dropsearch.study import trial_entry
from dropsearch.study.reconnect import patiently
from dropsearch.study.search_space import STEP, Params, Space
from dropsearch.study.selection import best_configurations
from dropsearch.study.studies import FINGERPRINT, study_names

MOST_POINTS = 5
"""Maximum number of an arm's first points that come from an earlier study."""
FORMS = frozenset({"rate.shared", "rate.first", "rate.last", STEP})
"""Parameters that describe the rates of several sites."""
NOTE = "warm_start"
"""Note of a study with its points, so that it continues without the earlier study."""


@dataclass(frozen=True)
class EarlierStudy:
    """The completed trials of an earlier study."""

    name: str
    module: str
    sites: tuple[str, ...]
    trials: Mapping[str, Sequence[TrialResult]]

    def is_of(self, module: str, sites: Sequence[str]) -> bool:
        """Return whether it searched the same class, or a module with the same sites."""
        return self.module == module or (bool(sites) and self.sites == tuple(sites))

    def points(self, space: Space) -> Points:
        """Return up to `MOST_POINTS` first points for an arm: its own best ones, then those of similar arms.

        Points that the space tries first anyway are left out.
        """
        found = Points()
        known = space.first_points
        for result in self._sources(space.arm):
            point, left_out = _fitted(space, result)
            if point in known:
                found.is_tried = True
            elif point and point not in found.points:
                found.points.append(point)
                found.left_out.update(left_out if result.spec.arm == space.arm.name else {})
            if len(found.points) == MOST_POINTS:
                break
        return found

    def _sources(self, arm: Arm) -> Iterator[TrialResult]:
        yield from self.trials.get(arm.name, ())
        others = [trial for name, trials in self.trials.items() if name != arm.name for trial in trials]
        yield from sorted(others, key=lambda trial: (ARMS[trial.spec.arm].batchnorm != arm.batchnorm, trial.objective))


@dataclass
class Points:
    """First points of an arm, and the values that its space does not contain."""

    points: list[Params] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Reasons by parameter."""
    is_tried: bool = False
    """Whether the space tries one of the earlier study's configurations first anyway."""


def _fitted(space: Space, result: TrialResult) -> tuple[Params, dict[str, str]]:
    """Return the parameters of an earlier trial that a space contains, and reasons by parameter for the others."""
    spec = result.spec
    point, left_out = {}, {}
    for name, value in {**_common(space, spec), **_rates(space, spec)}.items():
        if name not in space.distributions:
            left_out[name] = "not searched here"
        elif (parameter := space.parameter_of(name, value)) is None:
            left_out[name] = f"{value:.3g} is out of range" if isinstance(value, float) else f"{value} is out of range"
        else:
            point[name] = parameter
    return point, left_out


def _common(space: Space, spec: TrialSpec) -> dict[str, Any]:
    """Return learning rate, weight decay and other searched values of a trial."""
    tuned = {"lr": spec.lr, "weight_decay": spec.weight_decay}
    return {name: value for name, value in tuned.items() if name in space.distributions and not math.isnan(value)} | {
        **spec.hyperparameters
    }


def _rates(space: Space, spec: TrialSpec) -> dict[str, float]:
    """Return the rates of a trial as a space has them: by site, or in the form of both for several sites."""
    if not any(name.startswith("rate.") for name in space.distributions) or ARMS[spec.arm].dropout == "off":
        return {}
    described = {name: spec.params[name] for name in FORMS & spec.params.keys()}
    is_same_form = described and described.keys() == FORMS & space.distributions.keys()
    return described if is_same_form else {f"rate.{site}": rate for site, rate in spec.rates.items()}


def earlier_study(storage: BaseStorage, name: str | None, *, other_than: str | None = None) -> EarlierStudy:
    """Return a study of a storage, without writing anything.

    Args:
        other_than: The name of a study in the same storage that is not meant.
    """
    names = patiently("the earlier study", lambda: study_names(storage))
    known = sorted(set(names) - {other_than}) if name is None else [name] if name in names else []
    if not known:
        raise InputError("no study of dropsearch in it" if name is None else "no folder, file or study has this name")
    if len(known) > 1:
        raise InputError(
            f"it has the studies {', '.join(known)}: set study.storage to it and study.warm_start to one of these names"
        )
    studies = patiently(known[0], lambda: _loaded(storage, known[0]))
    settings = next((attrs for study in studies.values() if (attrs := study.user_attrs.get(FINGERPRINT))), None)
    if settings is None:
        raise InputError(f"study {known[0]} is not one of dropsearch")
    return EarlierStudy(
        known[0],
        str(settings.get("model.class")),
        tuple(settings.get("sites", ())),
        {arm: patiently(known[0], partial(_completed, study, arm)) for arm, study in studies.items()},
    )


def _loaded(storage: BaseStorage, name: str) -> dict[str, optuna.Study]:
    there = optuna.get_all_study_names(storage)
    return {
        arm: optuna.load_study(study_name=f"{name}/{arm}", storage=storage) for arm in ARMS if f"{name}/{arm}" in there
    }


def _completed(study: optuna.Study, arm: str) -> Sequence[TrialResult]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    results = [trial_entry.read(trial, arm, "search") for trial in trials if trial_entry.RESULT in trial.user_attrs]
    return best_configurations(results, len(results))


def kept_points(storage: BaseStorage, names: Iterable[str]) -> dict[str, list[Params]]:
    """Return the first points that studies keep, by name of the study; those that keep none are absent."""

    def read() -> dict[str, list[Params]]:
        there = {*optuna.get_all_study_names(storage)}
        attrs = {
            name: optuna.load_study(study_name=name, storage=storage).user_attrs for name in names if name in there
        }
        return {name: own[f"note.{NOTE}"] for name, own in attrs.items() if f"note.{NOTE}" in own}

    return patiently("the study", read)
