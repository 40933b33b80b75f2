"""Conversion between rates, which a storage shows as parameters, and the sampler's coordinates.

A coordinate below the lowest rate means a rate of 0 (see `search_space`). The storage has the rate as parameter and the
coordinate as a system attribute of the trial; trials that are read back have coordinates.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial

from dropsearch._compat.optuna_bulk import Bulk, Curves, Ending, shared

COORDINATES = "dropsearch:coordinates"
"""System attribute with the coordinate, the low end of its range and the lowest rate, by parameter."""


class RateDistribution(FloatDistribution):
    """The range of the sampler's coordinate of a rate.

    Args:
        least: Lowest nonzero rate; a coordinate below it means 0.
    """

    def __init__(self, low: float, high: float, least: float) -> None:
        super().__init__(low, high)
        self.least = float(least)

    def rate(self, coordinate: float) -> float:
        """Return the rate of a coordinate."""
        return coordinate if coordinate >= self.least else 0.0

    @property
    def readable(self) -> FloatDistribution:
        """The range of the rate."""
        return FloatDistribution(self.low if self.low == self.least else min(0.0, self.least), self.high)


class ReadableRates:
    """A study of a storage, with rates converted to coordinates."""

    def __init__(self, bulk: Bulk) -> None:
        self._bulk = bulk

    def look(self) -> list[FrozenTrial]:
        """Return trials created or ended since the last call, in order of their numbers."""
        return [_sampled(trial) for trial in self._bulk.look()]

    def attrs(self) -> Mapping[str, Any]:
        """Return the study's user attributes, at least as recent as the last `look`."""
        return self._bulk.attrs()

    def read(self, trial_ids: Sequence[int]) -> list[FrozenTrial]:
        """Return the current state of trials."""
        return [_sampled(trial) for trial in self._bulk.read(trial_ids)]

    def create(self, templates: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], bool]:
        """Create running trials; return them and whether another process created trials since the last `look`."""
        created, crowded = self._bulk.create([_readable(template) for template in templates])
        return [_sampled(trial) for trial in created], crowded

    def end(self, endings: Sequence[Ending]) -> list[tuple[FrozenTrial, bool]]:
        """End trials; return each trial's current state and whether this call ended it."""
        hidden = [dataclasses.replace(each, system_attrs=_without(each.system_attrs)) for each in endings]
        return [(_sampled(trial), was_running) for trial, was_running in self._bulk.end(hidden)]

    def write(self, curves: Curves, attrs: Mapping[str, Any]) -> None:
        """Add values to running trials, and set user attributes of the study."""
        self._bulk.write(curves, attrs)


def _readable(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial with rates as parameters."""
    ranges = {name: each for name, each in trial.distributions.items() if isinstance(each, RateDistribution)}
    if not ranges:
        return trial
    noted = {name: [trial.params[name], each.low, each.least] for name, each in ranges.items()}
    params = {name: each.rate(trial.params[name]) for name, each in ranges.items()}
    shown = {name: each.readable for name, each in ranges.items()}
    return _changed(trial, params, shown, {**trial.system_attrs, COORDINATES: noted})


def _sampled(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial with coordinates as parameters."""
    noted: Mapping[str, Sequence[float]] = trial.system_attrs.get(COORDINATES, {})
    if not noted:
        return trial
    params = {name: coordinate for name, (coordinate, _, _) in noted.items()}
    ranges = {
        name: RateDistribution(low, trial.distributions[name].high, least)  # type: ignore[attr-defined]
        for name, (_, low, least) in noted.items()
    }
    return _changed(trial, params, ranges, _without(trial.system_attrs))


def _changed(trial: FrozenTrial, params: Mapping[str, float], ranges: Mapping[str, Any], attrs: Any) -> FrozenTrial:
    changed = copy.copy(trial)
    changed.distributions = shared({**trial.distributions, **ranges})
    changed.params = {**trial.params, **params}
    changed.system_attrs = attrs
    return changed


def _without(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attrs.items() if name != COORDINATES}
