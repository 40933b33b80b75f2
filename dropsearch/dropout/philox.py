"""Philox 4x64-10 in torch integer operations, equal to NumPy's generator on any device.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011). uint64 words are stored in int64 tensors: sums and
products wrap correctly, and a mask makes right shifts logical.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
