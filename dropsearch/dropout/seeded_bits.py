"""Random bits of the masks of one trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from dropsearch.core.seeds import derived_seed
from dropsearch.dropout.device_bits import DeviceBits
from dropsearch.dropout.mask_bits import SiteBits


class SeededNoise:
    """Random bits of masks for one trial, the same on any device and engine."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.step = 0
        self._key = seed
        self._sites = SiteBits()
        self._on_device: dict[tuple[str, torch.Size], DeviceBits] = {}

    def begin(self, phase: str, step: int) -> None:
        """Start a step. Each phase has its own numbers; the name of training is empty."""
        self.step = step
        self._key = derived_seed(self.seed, phase) if phase else self.seed

    def remembered(self) -> Callable[[], AbstractContextManager[None]]:
        """Return a factory of contexts that restore the numbers of this step."""
        then = self._key, self.step

        @contextmanager
        def again() -> Iterator[None]:
            now = self._key, self.step
            self._key, self.step = then
            try:
                yield
            finally:
                self._key, self.step = now

        return again

    def bits(self, site: str, shape: torch.Size, device: torch.device) -> Tensor:
        """Return int16 bits of `shape` for a site at the current step, on `device`."""
        if draws(device):
            bits = self._on_device.get((site, shape))
            if bits is None:
                bits = self._on_device[site, shape] = DeviceBits({site: shape}, 1, device)
            return bits.draw([self._key], [self.step])[site][0]
        numbers = self._sites.draw(self._key, site, self.step, math.prod(shape))
        bits = torch.from_numpy(numbers).view(shape)
        return bits if device.type == "cpu" else bits.to(device)


def draws(device: torch.device) -> bool:
    """Return whether bits are drawn on a device; otherwise on the host, since Philox in torch is slow on a CPU."""
    return device.type == "cuda"
