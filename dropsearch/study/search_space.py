"""The search space: rates by site, learning rate, weight decay and further hyperparameters."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from dropsearch.core.records import Arm, Choice, Range, Site
from dropsearch.study.readable_rates import RateDistribution

Params = dict[str, Any]

STEP = "step.sites"
"""The parameter of a step: how many sites, from the first, have the rate; the sites behind them have rate 0."""

EQUAL = 1e-9
"""Rates that differ by less are equal."""


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


@dataclass(frozen=True)
class SpaceSettings:
    """Ranges of the search space, the same in every arm."""

    rates: Literal["per_layer", "shared", "depth", "step"] = "per_layer"
    low: float = 0.0
    high: float = 0.9
    zero_share: float = 0.2
    """Share of a rate's coordinate range that means a rate of 0."""
    lr: tuple[float, float] = (3e-4, 3e-2)
    weight_decay: tuple[float, float] = (1e-6, 1e-1)
    own: Mapping[str, float] = field(default_factory=dict)
    """The module's default learning rate and weight decay; the first points use those within the range."""
    off_is_given: bool = False
    """Whether arms without dropout set all rates to 0, since a user module has its own rates."""
    fixed: tuple[str, ...] = ()
    """Those of lr and weight_decay that are not searched."""
    hyperparameters: Mapping[str, Range] = field(default_factory=dict)
    """Further searched ranges, by configuration key."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """The values of `hyperparameters` in the first points."""
    earlier: Mapping[str, Sequence[Params]] = field(default_factory=dict)
    """Further first points by arm, from an earlier study; the sampler proposes the parameters that they lack."""


class Space:
    """The search space of an arm as Optuna distributions, and the conversion to rates.

    A continuous range never proposes exactly 0, although 0 is often the best rate. The sampler's coordinate of a rate
    therefore extends below `low` over `zero_share` of its length, and this part means a rate of 0. Each rate is one
    smooth parameter that TPE and GP can follow to zero.
    """

    def __init__(self, settings: SpaceSettings, arm: Arm, sites: Sequence[Site], typical: Mapping[str, float]) -> None:
        self.settings = settings
        self.arm = arm
        self.sites = tuple(site.name for site in sites if site.controllable)
        self.typical = {name: typical[name] for name in self.sites}

    @property
    def _form(self) -> str:
        if self.arm.dropout == "search":
            return self.settings.rates
        return self.arm.dropout

    @property
    def _coordinates(self) -> tuple[str, ...]:
        ends = ("rate.first", "rate.last")[: max(len(self.sites), 1)]
        forms = {"shared": ("rate.shared",), "depth": ends, "step": ("rate.first",)}
        per_layer = tuple(f"rate.{name}" for name in self.sites)
        return {**forms, "per_layer": per_layer}.get(self._form, ())

    @property
    def parameter_sites(self) -> dict[str, str]:
        """Site of each rate parameter: with rates by depth only the two ends, with a shared rate or a step none."""
        if self._form == "depth" and len(self.sites) > 1:
            return {"rate.first": self.sites[0], "rate.last": self.sites[-1]}
        return {f"rate.{name}": name for name in self.sites} if self._form == "per_layer" else {}

    def is_given(self, params: Mapping[str, Any]) -> bool:
        """Return whether a trial's parameters are one of `first_points`, which no sampler proposed."""
        return any(point.items() <= dict(params).items() for point in self.first_points)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The distributions of a trial's parameters.

        Parameters that all arms share come first. Random startup trials with the same key then have the same learning
        rate and weight decay in every arm, so that no arm is luckier.
        """
        return {
            **{name: FloatDistribution(*bounds, log=True) for name, bounds in self._common.items()},
            **{key: distribution(searched) for key, searched in self.settings.hyperparameters.items()},
            **dict.fromkeys(self._coordinates, self._rate_distribution),
            **{name: IntDistribution(1, most) for name, most in self._step.items()},
        }

    @property
    def _step(self) -> dict[str, int]:
        """Return the parameter of a step with its largest value, all sites; empty in other forms."""
        return {STEP: len(self.sites)} if self._form == "step" else {}

    @property
    def _rate_distribution(self) -> RateDistribution:
        low, high, share = self.settings.low, self.settings.high, self.settings.zero_share
        return RateDistribution(low - (high - low) * share / (1 - share), high, least=low)

    @property
    def _common(self) -> dict[str, tuple[float, float]]:
        """Return the ranges that every arm searches."""
        ranges = {"lr": self.settings.lr, "weight_decay": self.settings.weight_decay}
        return {name: bounds for name, bounds in ranges.items() if name not in self.settings.fixed}

    def rates(self, params: Mapping[str, Any]) -> dict[str, float]:
        """Return the rate of each site for proposed parameters; empty in an arm without dropout."""
        if self._form == "off":
            return dict.fromkeys(self.sites, 0.0) if self.settings.off_is_given else {}
        if self._form == "typical":
            return dict(self.typical)
        values = [self._rate_distribution.rate(params[name]) for name in self._coordinates]
        if self._form == "per_layer":
            return dict(zip(self.sites, values, strict=True))
        if self._form == "step":
            return {name: values[0] if place < params[STEP] else 0.0 for place, name in enumerate(self.sites)}
        steps = max(len(self.sites) - 1, 1)
        first, last = values[0], values[-1]
        return {name: first + (last - first) * i / steps for i, name in enumerate(self.sites)}

    def holds(self, rates: Mapping[str, float]) -> bool:
        """Return whether the arm can choose these rates by site; missing sites have rate 0."""
        values = [rates.get(name, 0.0) for name in self.sites]
        if self._form == "off":
            return not any(rates.values())
        if self._form == "typical":
            return _alike(values, [*self.typical.values()])
        first, last, places = values[0], values[-1], len(values)
        if self._form == "depth":
            line = [first + (last - first) * place / max(places - 1, 1) for place in range(places)]
            return _alike(values, line) and self._allows(first) and self._allows(last)
        if not all(map(self._allows, values)):
            return False
        if self._form == "step":
            return any(_alike(values, [first] * count + [0.0] * (places - count)) for count in range(1, places + 1))
        return self._form == "per_layer" or _alike(values, [first] * places)

    def _allows(self, rate: float) -> bool:
        low, high = self.settings.low, self.settings.high
        return (rate == 0 and self.settings.zero_share > 0) or low - EQUAL <= rate <= high + EQUAL

    def hyperparameters(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the other proposed values by configuration key."""
        return {key: value_of(searched, params[key]) for key, searched in self.settings.hyperparameters.items()}

    def parameter_of(self, name: str, value: Any) -> Any:
        """Return the parameter with which a trial has a value, or None if the space does not contain the value."""
        if name in self.settings.hyperparameters:
            searched = self.settings.hyperparameters[name]
            return parameter(value) if searched.holds(value) else None
        ranges = {**self._common, **{step: (1, most) for step, most in self._step.items()}}
        low, high = ranges.get(name, (self.settings.low, self.settings.high))
        if name in self._coordinates and value == 0 and (low == 0 or self.settings.zero_share > 0):
            return self._zero_point()[name]
        return value if low <= value <= high else None

    @property
    def first_points(self) -> tuple[Params, ...]:
        """Return the points tried first: typical rates, then all rates zero, then those of an earlier study.

        One rate for all sites, or for those in front of a step, is the mean of the typical rates, at all sites.
        """
        return (*self._own_points, *self.settings.earlier.get(self.arm.name, ()))

    @property
    def _own_points(self) -> tuple[Params, ...]:
        base: Params = {name: self._own_or_middle(name, bounds) for name, bounds in self._common.items()}
        base |= {key: parameter(self.settings.start[key]) for key in self.settings.hyperparameters}
        if not self._coordinates:
            return (base,)
        base |= self._step
        return ({**base, **self._typical_point()}, {**base, **self._zero_point()})

    def _own_or_middle(self, name: str, bounds: tuple[float, float]) -> float:
        low, high = bounds
        own = self.settings.own.get(name, math.nan)
        return own if low <= own <= high else math.sqrt(low * high)

    def _typical_point(self) -> Params:
        rates = list(self.typical.values())
        mean = sum(rates) / len(rates)
        first = mean if self._form == "step" else rates[0]
        ends = {"rate.shared": mean, "rate.first": first, "rate.last": rates[-1]}
        wanted = {f"rate.{name}": rate for name, rate in self.typical.items()} | ends
        low, high = self.settings.low, self.settings.high
        return {name: min(max(wanted[name], low), high) for name in self._coordinates}

    def _zero_point(self) -> Params:
        # Any coordinate below `low` means zero; the middle of that part is well inside the range.
        low = self._rate_distribution.low
        zero = (low + self.settings.low) / 2 if self.settings.zero_share > 0 else self.settings.low
        return dict.fromkeys(self._coordinates, zero)


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) < EQUAL for a, b in zip(one, other, strict=True))
