"""Random bits of the masks of stacked rows, drawn on the rows' device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from dropsearch.dropout.mask_bits import philox, site_word, words

_PER_BLOCK = 16
"""Number of 16-bit numbers in the four words of a counter."""
_BLOCK_BYTES = 32
BUDGET = 32 << 20
"""Bytes of bits to draw ahead. A draw takes about a hundred small operations for any number of steps."""
MOST_AHEAD = 64


class DeviceBits:
    """Draws the same bits as `RowBits`, on the device and for many steps at once, at most `budget` bytes ahead."""

    def __init__(self, shapes: Mapping[str, torch.Size], rows: int, device: torch.device, budget: int = BUDGET) -> None:
        self.shapes, self.rows = dict(shapes), rows
        blocks = {site: -(-math.prod(shape) // _PER_BLOCK) for site, shape in shapes.items()}
        self.size = _PER_BLOCK * sum(blocks.values())
        """Numbers per row and step; each site is rounded up to whole blocks."""
        self.ahead = max(1, min(MOST_AHEAD, budget // max(1, rows * sum(blocks.values()) * _BLOCK_BYTES)))
        self._device = device
        # NumPy's generator increments its counter before it draws, so the first block has index 1.
        indices = [torch.arange(1, count + 1, device=device) for count in blocks.values()]
        sites = [words([site_word(site)], device).expand(count) for site, count in blocks.items()]
        none = torch.zeros(0, dtype=torch.int64, device=device)
        self._index, self._site = torch.cat([none, *indices]), torch.cat([none, *sites])
        ends = itertools.accumulate(_PER_BLOCK * count for count in blocks.values())
        self._starts = {site: end - _PER_BLOCK * blocks[site] for site, end in zip(blocks, ends, strict=True)}
        self._seeds: list[int] = []
        self._steps: list[int] = []
        self._drawn = torch.zeros(0, rows, self.size, dtype=torch.int16, device=device)

    def field(self, seeds: Sequence[int], steps: Sequence[int]) -> Tensor:
        """Return the concatenated bits of all sites, int16 `[rows, size]`; `views` splits them."""
        passed = [step - first for step, first in zip(steps, self._steps, strict=False)]
        known = list(seeds) == self._seeds and len(set(passed)) == 1
        if not known or not 0 <= passed[0] < len(self._drawn):
            self._draw(list(seeds), list(steps))
            passed = [0]
        return self._drawn[passed[0]]

    @property
    def is_one_kernel(self) -> bool:
        """Whether `fill` draws the bits of a step in one launch, so that drawing ahead is unnecessary."""
        return self._device.type == "cuda" and _cuda_kernel() is not None

    def fill(self, field: Tensor, seeds: Tensor, steps: Tensor) -> None:
        """Draw the bits of one step into a field, int16 `[rows, size]`, without the host, as part of a recorded step.

        Seeds and steps of the rows are int64 `[rows]`.
        """
        if not self.size:
            return
        words, kernel = field.view(torch.int64).view(len(field), -1, 4), _cuda_kernel() if field.is_cuda else None
        if kernel is None:
            words.copy_(self._philox(seeds, steps))
        else:
            kernel(words, seeds, steps, self._index, self._site)

    def _philox(self, seeds: Tensor, steps: Tensor) -> Tensor:
        none = torch.zeros(1, dtype=torch.int64, device=self._device)
        return philox((self._index, steps[:, None], self._site, none), (seeds[:, None], none))

    def views(self, field: Tensor) -> dict[str, Tensor]:
        """Return views of each site's bits in a field, int16 `[rows, *shape]`."""
        return {
            site: field[:, start : start + math.prod(self.shapes[site])].view(self.rows, *self.shapes[site])
            for site, start in self._starts.items()
        }

    def fields(self) -> list[Tensor]:
        """Return the memory of the bits drawn ahead."""
        return [self._drawn]

    def draw(self, seeds: Sequence[int], steps: Sequence[int]) -> dict[str, Tensor]:
        """Return the bits of each site, int16 `[rows, *shape]`, equal to those of sequential trials."""
        return self.views(self.field(seeds, steps))

    def _draw(self, seeds: list[int], steps: list[int]) -> None:
        self._seeds, self._steps = seeds, steps
        later = torch.arange(self.ahead, device=self._device)
        at = (words(steps, self._device) + later[:, None]).flatten()
        keys = words(seeds, self._device).repeat(self.ahead)
        self._drawn = torch.zeros(len(at), self.size, dtype=torch.int16, device=self._device)
        if self.is_one_kernel:
            self.fill(self._drawn, keys, at)
        elif self.size:
            self._drawn = self._philox(keys, at).flatten(1).view(torch.int16)
        self._drawn = self._drawn.view(self.ahead, self.rows, self.size)


@cache
def _cuda_kernel() -> Callable[..., None] | None:
    """Return a function that fills a field in one launch, or None if Triton is missing."""
    try:
        from dropsearch.dropout import philox_triton
    except ImportError:
        return None
    return philox_triton.fill
