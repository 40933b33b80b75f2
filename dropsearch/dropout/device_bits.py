"""The random bits of the masks of stacked rows, drawn on the device of the rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from dropsearch.dropout.mask_bits import site_word
from dropsearch.dropout.philox import philox, words

_PER_BLOCK = 16
"""16-bit numbers in the four words of one counter."""
_BLOCK_BYTES = 32
BUDGET = 32 << 20
"""Bytes of bits that are drawn ahead: some hundred small operations draw them all, however many steps they are for."""
MOST_AHEAD = 64


class DeviceBits:
    """The bits that `RowBits` draws on the host, number for number, drawn on the device for many steps at once.

    Args:
        shapes: The shape of each site's mask for one row.
        rows: How many rows.
        device: Where the bits are drawn.
        budget: The bytes that may be drawn ahead.
    """

    def __init__(self, shapes: Mapping[str, torch.Size], rows: int, device: torch.device, budget: int = BUDGET) -> None:
        self.shapes, self.rows = dict(shapes), rows
        blocks = {site: -(-math.prod(shape) // _PER_BLOCK) for site, shape in shapes.items()}
        self.size = _PER_BLOCK * sum(blocks.values())
        """Numbers of one row's step, with what rounds each site up to whole blocks."""
        self.ahead = max(1, min(MOST_AHEAD, budget // max(1, rows * sum(blocks.values()) * _BLOCK_BYTES)))
        self._device = device
        # NumPy's generator counts before it draws: its first block has index 1.
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
        """Return the bits of all sites side by side, int16 `[rows, size]`; `views` takes them apart."""
        passed = [step - first for step, first in zip(steps, self._steps, strict=False)]
        known = list(seeds) == self._seeds and len(set(passed)) == 1
        if not known or not 0 <= passed[0] < len(self._drawn):
            self._draw(list(seeds), list(steps))
            passed = [0]
        return self._drawn[passed[0]]

    @property
    def is_one_kernel(self) -> bool:
        """Whether `fill` draws a step's bits in one launch, so that none need be drawn ahead."""
        return self._device.type == "cuda" and _cuda_kernel() is not None

    def fill(self, field: Tensor, seeds: Tensor, steps: Tensor) -> None:
        """Draw the bits of one step into `field`, without a word from the host: a part of a recorded step.

        Args:
            field: int16 `[rows, size]`, contiguous.
            seeds: The seed of each row's masks, int64 `[rows]`.
            steps: The step of its own trial that each row is at, int64 `[rows]`.
        """
        if self.size:
            words = field.view(torch.int64).view(len(field), -1, 4)
            words.copy_(self._philox(seeds, steps)) if not field.is_cuda else self._launch(words, seeds, steps)

    def _launch(self, words: Tensor, seeds: Tensor, steps: Tensor) -> None:
        kernel = _cuda_kernel()
        assert kernel is not None
        kernel(words, seeds, steps, self._index, self._site)

    def _philox(self, seeds: Tensor, steps: Tensor) -> Tensor:
        """Return the words of all blocks, int64 `[rows, blocks, 4]`."""
        none = torch.zeros(1, dtype=torch.int64, device=self._device)
        return philox((self._index, steps[:, None], self._site, none), (seeds[:, None], none))

    def views(self, field: Tensor) -> dict[str, Tensor]:
        """Return the part of each site in a field, int16 `[rows, *shape]`, in the field's own memory."""
        return {
            site: field[:, start : start + math.prod(self.shapes[site])].view(self.rows, *self.shapes[site])
            for site, start in self._starts.items()
        }

    def fields(self) -> list[Tensor]:
        """Return the memory of the bits that were drawn ahead."""
        return [self._drawn]

    def draw(self, seeds: Sequence[int], steps: Sequence[int]) -> dict[str, Tensor]:
        """Return the bits of each site, int16 `[rows, *shape]`: what each trial would draw alone.

        Args:
            seeds: The seed of each row's masks.
            steps: The step of its own trial that each row is at.
        """
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
    """Return what fills a field in one launch, None where torch came without Triton."""
    try:
        from dropsearch.dropout import philox_triton
    except ImportError:
        return None
    return philox_triton.fill
