"""Conversion of ranges and values to Optuna's distributions and parameters, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from dropsearch._compat.optuna_writes import filtered
from dropsearch.core.records import Choice, Range


def distribution(searched: Range) -> BaseDistribution:
    """Return the distribution of a range; lists become strings, since Optuna supports none."""
    if isinstance(searched, Choice):
        return CategoricalDistribution([parameter(value) for value in searched.values])
    low, high = searched.low, searched.high
    if searched.is_integer:
        return IntDistribution(int(low), int(high), log=searched.log, step=int(searched.step or 1))
    return FloatDistribution(low, high, log=searched.log, step=searched.step)


def parameter(value: Any) -> Any:
    """Return a value as an Optuna parameter."""
    return json.dumps(value) if isinstance(value, list) else value


def value_of(searched: Range, proposed: Any) -> Any:
    """Return the value of an Optuna parameter."""
    if isinstance(searched, Choice):
        return next(value for value in searched.values if parameter(value) == proposed)
    return proposed


def propose(
    study: optuna.Study,
    trial: FrozenTrial,
    distributions: Mapping[str, BaseDistribution],
    point: Mapping[str, Any],
    inferred: Mapping[str, BaseDistribution],
) -> dict[str, Any]:
    """Return the parameters of a trial before it is created; `Trial.suggest_*` would need a created trial.

    Args:
        study: The study whose sampler proposes.
        trial: The trial as the study's storage holds it, without parameters.
        distributions: The parameters.
        point: Fixed values of some parameters.
        inferred: The sampler's relative search space, whose parameters it proposes jointly.
    """
    sampler, seen = study.sampler, filtered(study, trial)
    sampler.before_trial(seen, trial)
    searched = {name: given for name, given in inferred.items() if name in distributions and name not in point}
    relative = sampler.sample_relative(seen, trial, searched)
    found = {}
    for name, given in distributions.items():
        if name in point:
            value = point[name]
        elif given.single():
            value = given.choices[0] if isinstance(given, CategoricalDistribution) else given.low  # type: ignore[attr-defined]
        elif name in relative:
            value = relative[name]
        else:
            value = sampler.sample_independent(seen, trial, name, given)
        found[name] = given.to_external_repr(given.to_internal_repr(value))
    return found
