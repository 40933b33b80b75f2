"""What else is searched, in Optuna's terms: ranges as distributions, values as parameters and back."""

from __future__ import annotations

import json
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from dropsearch.core.records import Choice, Range


def distribution(searched: Range) -> BaseDistribution:
    """Return the distribution of a parameter with this range; lists are chosen by their text, for Optuna has none."""
    if isinstance(searched, Choice):
        return CategoricalDistribution([parameter(value) for value in searched.values])
    low, high = searched.low, searched.high
    if searched.is_integer:
        return IntDistribution(int(low), int(high), log=searched.log, step=int(searched.step or 1))
    return FloatDistribution(low, high, log=searched.log, step=searched.step)


def parameter(value: Any) -> Any:
    """Return a value as Optuna's parameters have it."""
    return json.dumps(value) if isinstance(value, list) else value


def value_of(searched: Range, proposed: Any) -> Any:
    """Return the value that a parameter means."""
    if isinstance(searched, Choice):
        return next(value for value in searched.values if parameter(value) == proposed)
    return proposed


def suggest(trial: Trial, name: str, given: BaseDistribution) -> Any:
    """Have a trial propose a parameter of any distribution."""
    if isinstance(given, CategoricalDistribution):
        return trial.suggest_categorical(name, given.choices)
    assert isinstance(given, FloatDistribution | IntDistribution)
    if isinstance(given, IntDistribution):
        return trial.suggest_int(name, given.low, given.high, step=given.step, log=given.log)
    return trial.suggest_float(name, given.low, given.high, step=given.step, log=given.log)
