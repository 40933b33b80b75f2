"""The random bits of one trial's masks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dropsearch.dropout.device_bits import DeviceBits
from dropsearch.dropout.mask_bits import SiteBits


class SeededNoise:
    """Masks' random bits for one trial: the same numbers wherever they are drawn."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.step = 0
        self._sites = SiteBits()
        self._on_device: dict[tuple[str, torch.Size], DeviceBits] = {}

    def bits(self, site: str, shape: torch.Size, device: torch.device) -> Tensor:
        """Return int16 bits of `shape` for a site at the present step, on `device`."""
        if draws(device):
            bits = self._on_device.get((site, shape))
            if bits is None:
                bits = self._on_device[site, shape] = DeviceBits({site: shape}, 1, device)
            return bits.draw([self.seed], [self.step])[site][0]
        numbers = self._sites.draw(self.seed, site, self.step, math.prod(shape))
        return torch.from_numpy(numbers).view(shape).to(device)


def draws(device: torch.device) -> bool:
    """Say whether bits are drawn on a device itself; else on the host, for a CPU is slow at Philox in torch."""
    return device.type == "cuda"
