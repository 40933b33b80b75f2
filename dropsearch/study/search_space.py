"""What is searched: a rate for each site, the learning rate, the weight decay, and what else is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.distributions import BaseDistribution, FloatDistribution

from dropsearch.core.records import Arm, Range, Site
from dropsearch.study.distributions import distribution, parameter, value_of
from dropsearch.study.readable_rates import RateDistribution

Params = dict[str, Any]


@dataclass(frozen=True)
class SpaceSettings:
    """The ranges, the same in every arm."""

    rates: Literal["per_layer", "shared", "depth"] = "per_layer"
    low: float = 0.0
    high: float = 0.9
    zero_share: float = 0.2
    """The share of a rate's range, as the sampler sees it, that means "no dropout here"."""
    lr: tuple[float, float] = (3e-4, 3e-2)
    weight_decay: tuple[float, float] = (1e-6, 1e-1)
    own: Mapping[str, float] = field(default_factory=dict)
    """The learning rate and weight decay that the module has by itself: the first points have those in the range."""
    off_is_given: bool = False
    """Whether the sites of an arm without dropout are given a rate of 0: a user module has rates of its own."""
    fixed: tuple[str, ...] = ()
    """Which of lr and weight_decay are not searched."""
    hyperparameters: Mapping[str, Range] = field(default_factory=dict)
    """What else is searched, by configuration key."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """The values of `hyperparameters` in the first points."""


class Space:
    """One arm's search space in Optuna's terms, and its meaning in rates.

    A continuous range never proposes 0 itself, though "no dropout here" is often the answer. So the
    sampler's coordinate of a rate reaches below `low`, over `zero_share` of its whole length, and all of
    that part means a rate of 0: one smooth parameter a rate, which TPE and GP can follow to zero.

    Args:
        settings: Ranges.
        arm: Whether and how rates are searched.
        sites: The sites of the arm's model, in the order of a forward pass.
        typical: The typical rate by site name: the first point.
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
        forms = {"shared": ("rate.shared",), "depth": ("rate.first", "rate.last")}
        per_layer = tuple(f"rate.{name}" for name in self.sites)
        return {**forms, "per_layer": per_layer}.get(self._form, ())

    @property
    def parameter_sites(self) -> dict[str, str]:
        """The site whose rate a parameter is, by parameter; of a line by depth only the ends, of a shared rate none."""
        if self._form == "depth" and len(self.sites) > 1:
            return {"rate.first": self.sites[0], "rate.last": self.sites[-1]}
        return {f"rate.{name}": name for name in self.sites} if self._form == "per_layer" else {}

    def is_given(self, params: Mapping[str, Any]) -> bool:
        """Say whether a trial's parameters are one of the first points, which no sampler proposed."""
        return any(point.items() <= dict(params).items() for point in self.first_points)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The parameters of every trial of the arm.

        What all arms have comes first: so trials of one place that are drawn blindly, before the sampler has
        learnt, have the same learning rate and weight decay in every arm, and no arm has luckier ones.
        """
        return {
            **{name: FloatDistribution(*bounds, log=True) for name, bounds in self._common.items()},
            **{key: distribution(searched) for key, searched in self.settings.hyperparameters.items()},
            **dict.fromkeys(self._coordinates, self._rate_distribution),
        }

    @property
    def _rate_distribution(self) -> RateDistribution:
        low, high, share = self.settings.low, self.settings.high, self.settings.zero_share
        return RateDistribution(low - (high - low) * share / (1 - share), high, least=low)

    @property
    def _common(self) -> dict[str, tuple[float, float]]:
        """The ranges of what every arm searches."""
        ranges = {"lr": self.settings.lr, "weight_decay": self.settings.weight_decay}
        return {name: bounds for name, bounds in ranges.items() if name not in self.settings.fixed}

    def rates(self, params: Mapping[str, Any]) -> dict[str, float]:
        """Return the rate of each site for what the sampler proposed; empty in an arm without dropout."""
        if self._form == "off":
            return dict.fromkeys(self.sites, 0.0) if self.settings.off_is_given else {}
        if self._form == "typical":
            return dict(self.typical)
        values = [self._rate(params[name]) for name in self._coordinates]
        if self._form == "per_layer":
            return dict(zip(self.sites, values, strict=True))
        steps = max(len(self.sites) - 1, 1)
        first, last = values[0], values[-1]
        return {name: first + (last - first) * i / steps for i, name in enumerate(self.sites)}

    def hyperparameters(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return what else was proposed, by configuration key."""
        return {key: value_of(searched, params[key]) for key, searched in self.settings.hyperparameters.items()}

    def _rate(self, coordinate: float) -> float:
        return self._rate_distribution.rate(coordinate)

    @property
    def first_points(self) -> tuple[Params, ...]:
        """Points asked before the sampler's own: the typical rates, then all rates zero."""
        base: Params = {name: self._own_or_middle(name, bounds) for name, bounds in self._common.items()}
        base |= {key: parameter(self.settings.start[key]) for key in self.settings.hyperparameters}
        if not self._coordinates:
            return (base,)
        return ({**base, **self._typical_point()}, {**base, **self._zero_point()})

    def _own_or_middle(self, name: str, bounds: tuple[float, float]) -> float:
        low, high = bounds
        own = self.settings.own.get(name, math.nan)
        return own if low <= own <= high else math.sqrt(low * high)

    def _typical_point(self) -> Params:
        rates = list(self.typical.values())
        ends = {"rate.shared": sum(rates) / len(rates), "rate.first": rates[0], "rate.last": rates[-1]}
        wanted = {f"rate.{name}": rate for name, rate in self.typical.items()} | ends
        return {name: self._clip(wanted[name]) for name in self._coordinates}

    def _zero_point(self) -> Params:
        # With a share for zero any coordinate below `low` means it; half-way down is well inside the range.
        low = self._rate_distribution.low
        zero = (low + self.settings.low) / 2 if self.settings.zero_share > 0 else self.settings.low
        return dict.fromkeys(self._coordinates, zero)

    def _clip(self, rate: float) -> float:
        return min(max(rate, self.settings.low), self.settings.high)
