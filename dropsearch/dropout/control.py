"""The control that sets the rates of a model's dropout calls and draws masks and other random numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dropsearch.dropout.distributions import numbers_of
from dropsearch.dropout.keyed_draws import Draw
from dropsearch.dropout.location import owner_of, per_call
from dropsearch.dropout.mode import DropoutMode
from dropsearch.dropout.ops import DropCall
from dropsearch.dropout.rates import LiveRate, Rate

Bits = Callable[[str, torch.Size, torch.device], Tensor]
"""Returns random bits for a mask of a site, int16 of this shape, uniform over all int16 values."""


class DropoutControl(DropoutMode):
    """Applies given rates at every dropout call of a model, with masks from `bits`.

    Args:
        model: The module whose `forward` or `training_step` runs inside `step()` (inside `watching()`).
        rates: Rate by site name, for all calls of the site. A name such as ``drop@2`` sets the rate of the second and
            later calls in a pass. Unnamed places in a module with a named site have that site's rate; all other places
            keep the module's rate.
        bits: Source of the masks' random bits.
        off: Disable dropout everywhere.
    """

    def __init__(self, model: nn.Module, rates: Mapping[str, Rate], bits: Bits, *, off: bool = False) -> None:
        super().__init__(model)
        self.rates = dict(rates)
        self.bits = bits
        self.off = off
        self.dropped: Counter[str] = Counter()
        """Number of calls of each site at a rate above 0."""
        self.unnamed: dict[str, float] = {}
        """Dropout places without a rate in `rates`, with the rate of their call."""

    @property
    def rates(self) -> dict[str, Rate]:
        """The rates by name of site or call."""
        return self._rates

    @rates.setter
    def rates(self, rates: dict[str, Rate]) -> None:
        self._rates = rates
        self._last_calls = Counter[str]()
        """By site, the last call that has a rate of its own."""
        for site, _, call in (name.rpartition("@") for name in rates if "@" in name):
            self._last_calls[site] = max(self._last_calls[site], int(call) if call.isdecimal() else 1)

    def on_drop(self, site: str, call: DropCall, original: Callable[..., Tensor]) -> Tensor:
        """Drop at the site's rate."""
        rate = self._rate(site, call.rate)
        if isinstance(rate.value, float | int) and rate.value == 0:
            return self.on_pass(call, call.undropped)
        self.dropped[site] += 1
        name = self.location.last_call
        return call.drop(rate, lambda shape, x: self.bits(name, shape, x.device))

    def on_own(self, site: str, rate: float) -> float:
        """Return the site's rate for an operation with its own code."""
        value = self._rate(site, rate).value
        if isinstance(value, Tensor):
            return LiveRate(value)
        if value > 0:
            self.dropped[site] += 1
        return float(value)

    def on_keyed(self, name: str, draw: Draw, original: Callable[[], Any]) -> Any:
        """Draw from the noise of the masks if possible."""
        if draw.obstacle:
            return original()
        return draw.made(numbers_of(self.bits(name, bits_shape(draw), draw.device)))

    def _rate(self, site: str, written: float) -> Rate:
        given = self._given(site)
        if given is None and written > 0:
            self.unnamed.setdefault(site, float(written))
        if self.off:
            return _ZERO
        given = given or self.rates.get(owner_of(site))
        return Rate.of(written) if given is None else given

    def _given(self, site: str) -> Rate | None:
        for number in range(min(self.location.call, self._last_calls[site]), 1, -1):
            if (rate := self.rates.get(per_call(site, number))) is not None:
                return rate
        return self.rates.get(site)


_ZERO = Rate.of(0.0)


def bits_shape(draw: Draw) -> torch.Size:
    """Return the shape of the int16 bits for the numbers of a draw."""
    return torch.Size((*draw.shape, 2))
