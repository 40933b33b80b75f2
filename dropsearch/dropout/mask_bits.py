"""Random bits for masks: a pure function of (trial seed, site, step).

The generator is Philox 4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), which is
counter-based: the seed is its key, site and step are words of its counter. There is no state between steps, so a trial
draws the same masks sequentially and in any row, whatever trains in the other rows.

`SiteBits` uses NumPy's generator; `philox` gives the same numbers on any device. It stores uint64 words in int64
tensors: sums and products wrap correctly, and a mask makes right shifts logical.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
        self._counter, self._key = np.zeros(4, np.uint64), np.zeros(2, np.uint64)
        # NumPy copies the numbers of a state that is set.
        self._state = {**self._generator.state, "state": {"counter": self._counter, "key": self._key}}

    def draw(self, seed: int, site: str, step: int, count: int) -> np.ndarray:
        """Return `count` independent numbers, uniform over all int16 values, int16 `[count]`."""
        # The lowest counter word is Philox's running index; the next two are site and step.
        self._counter[1], self._counter[2], self._key[0] = step, site_word(site), seed
        self._generator.state = self._state
        words = self._generator.random_raw(-(-count // 4))
        return np.asarray(words).view(np.int16)[:count]


_HALF = (1 << 32) - 1
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_BUMPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10


def _signed(word: int) -> int:
    """Return the int64 with the bits of a uint64."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


def words(values: list[int], device: torch.device) -> Tensor:
    """Return uint64 numbers as an int64 tensor with the same bits, `[len(values)]`."""
    return torch.tensor([_signed(value) for value in values], dtype=torch.int64, device=device)


def _high(a: Tensor, b: int) -> Tensor:
    """Return the upper 64 bits of the 128-bit product of unsigned `a` and `b`."""
    a_low, a_high = a & _HALF, (a >> 32) & _HALF
    b_low, b_high = b & _HALF, b >> 32
    crossed, other = a_low * b_high, a_high * b_low
    carried = ((a_low * b_low >> 32) & _HALF) + (crossed & _HALF) + (other & _HALF)
    return a_high * b_high + ((crossed >> 32) & _HALF) + ((other >> 32) & _HALF) + ((carried >> 32) & _HALF)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> Tensor:
    """Return four words for each counter.

    Args:
        counter: Counter words from the lowest, int64, with broadcastable shapes.
        key: Two key words, int64, broadcastable with the counter.

    Returns:
        int64 `[..., 4]`, in the output order of NumPy's `Philox`.
    """
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for turn in range(ROUNDS):
        high0, low0 = _high(x0, _MULTIPLIERS[0]), x0 * _signed(_MULTIPLIERS[0])
        high1, low1 = _high(x2, _MULTIPLIERS[1]), x2 * _signed(_MULTIPLIERS[1])
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        if turn < ROUNDS - 1:
            k0, k1 = k0 + _signed(_BUMPS[0]), k1 + _signed(_BUMPS[1])
    return torch.stack(torch.broadcast_tensors(x0, x1, x2, x3), dim=-1)


_PER_BLOCK = 16
"""Number of 16-bit numbers in the four words of a counter."""


class DeviceBits:
    """Draws the same bits as `RowBits`, on the device."""

    def __init__(self, shapes: Mapping[str, torch.Size], rows: int, device: torch.device) -> None:
        self.shapes, self.rows = dict(shapes), rows
        blocks = {site: -(-math.prod(shape) // _PER_BLOCK) for site, shape in shapes.items()}
        self.size = _PER_BLOCK * sum(blocks.values())
        """Numbers per row and step; each site is rounded up to whole blocks."""
        self._device = device
        # NumPy's generator increments its counter before it draws, so the first block has index 1.
        indices = [torch.arange(1, count + 1, device=device) for count in blocks.values()]
        sites = [words([site_word(site)], device).expand(count) for site, count in blocks.items()]
        none = torch.zeros(0, dtype=torch.int64, device=device)
        self._index, self._site = torch.cat([none, *indices]), torch.cat([none, *sites])
        ends = itertools.accumulate(_PER_BLOCK * count for count in blocks.values())
        self._starts = {site: end - _PER_BLOCK * blocks[site] for site, end in zip(blocks, ends, strict=True)}

    def fill(self, field: Tensor, seeds: Tensor, steps: Tensor) -> None:
        """Draw the bits of one step into a field, int16 `[rows, size]`, without the host, as part of a recorded step.

        Seeds and steps of the rows are int64 `[rows]`.
        """
        if not self.size:
            return
        blocks, kernel = field.view(torch.int64).view(len(field), -1, 4), _cuda_kernel() if field.is_cuda else None
        if kernel is None:
            none = torch.zeros(1, dtype=torch.int64, device=self._device)
            blocks.copy_(philox((self._index, steps[:, None], self._site, none), (seeds[:, None], none)))
        else:
            kernel(blocks, seeds, steps, self._index, self._site)

    def views(self, field: Tensor) -> dict[str, Tensor]:
        """Return views of each site's bits in a field, int16 `[rows, *shape]`."""
        return {
            site: field[:, start : start + math.prod(self.shapes[site])].view(self.rows, *self.shapes[site])
            for site, start in self._starts.items()
        }

    def draw(self, seeds: Sequence[int], steps: Sequence[int]) -> dict[str, Tensor]:
        """Return the bits of each site, int16 `[rows, *shape]`, equal to those of sequential trials."""
        field = torch.zeros(self.rows, self.size, dtype=torch.int16, device=self._device)
        self.fill(field, words(list(seeds), self._device), words(list(steps), self._device))
        return self.views(field)


@cache
def _cuda_kernel() -> Callable[..., None] | None:
    """Return a function that fills a field in one launch, or None if Triton is missing."""
    try:
        from dropsearch.dropout import philox_triton
    except ImportError:
        return None
    return philox_triton.fill
