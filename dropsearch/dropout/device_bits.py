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
