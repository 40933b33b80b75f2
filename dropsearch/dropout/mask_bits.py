"""Random bits for masks: a pure function of (trial seed, site, step).

The generator is Philox 4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), which is
counter-based: the seed is its key, site and step are words of its counter. There is no state between steps, so a trial
draws the same masks sequentially and in any row, whatever trains in the other rows.
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any

import numpy as np

LEVELS = 1 << 16
"""A mask compares 16 random bits with the rate, so rates are exact to within 1/65536."""


@cache
def site_word(site: str) -> int:
    """Return the counter word of a site, the CRC-32 of its name, which does not depend on the order of sites."""
    return zlib.crc32(site.encode())


class SiteBits:
    """Draws the bits of sites with one generator, whose counter is set at each draw, since creating one is slower."""

    def __init__(self) -> None:
        self._generator: Any = np.random.Philox(key=0)
        self._unused = self._generator.state

    def draw(self, seed: int, site: str, step: int, count: int) -> np.ndarray:
        """Return `count` independent 16-bit numbers, uniform over all int16 values.

        Args:
            seed: The trial's seed, at least 0 and below 2^64.
            site: The site's name.
            step: The training step of the trial, counted from 0.
            count: Number of values.

        Returns:
            int16 array `[count]`.
        """
        # The lowest counter word is Philox's running index; the next two are site and step.
        counter, key = np.array([0, step, site_word(site), 0], np.uint64), np.array([seed, 0], np.uint64)
        self._generator.state = {**self._unused, "state": {"counter": counter, "key": key}}
        words = self._generator.random_raw(-(-count // 4))
        return np.asarray(words).view(np.int16)[:count]
