"""Numbers of distributions, computed from uniform 32-bit numbers as float64.

They equal PyTorch's distributions in the precision of the result's type.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dropsearch._compat.row_values import needs_gradient
from dropsearch._compat.torch_modules import gamma_slope

LEVELS = 2.0**32
"""Number of possible values of a random number."""

_BITS = {torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
"""Bits of a uniform number by type, as in PyTorch; other types have all 32."""

TRIES = 12
"""Proposals per gamma number. All are rejected once in 10^15 draws; then the last one is used."""


def numbers_of(bits: Tensor) -> Tensor:
    """Return 32-bit numbers, float64 `[...]`, from int16 bits `[..., 2]`."""
    high, low = bits[..., 0].double() + 32768, bits[..., 1].double() + 32768
    return high * 65536 + low


def unit(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """Return uniform numbers in [0, 1) with the bits of the type, so that none is rounded up to 1."""
    levels = 2.0 ** _BITS.get(dtype, 32)
    return torch.floor(numbers * (levels / LEVELS)) / levels


def open_unit(numbers: Tensor) -> Tensor:
    """Return uniform numbers in (0, 1)."""
    return (numbers + 0.5) / LEVELS


def normal(numbers: Tensor) -> Tensor:
    """Return standard normal numbers."""
    return torch.erfinv(2 * open_unit(numbers) - 1) * math.sqrt(2)


def exponential(numbers: Tensor) -> Tensor:
    """Return exponential numbers of mean 1."""
    return -torch.log(open_unit(numbers))


def below(numbers: Tensor, share: Any) -> Tensor:
    """Return True where an event with this probability happens."""
    share = share.detach().double() if isinstance(share, Tensor) else float(share)
    return numbers < share * LEVELS


def whole(numbers: Tensor, low: int, high: int) -> Tensor:
    """Return integers in [low, high)."""
    return torch.floor(numbers * ((high - low) / LEVELS)) + low


def gamma(alpha: Tensor, numbers: Tensor) -> Tensor:
    """Return gamma numbers by Marsaglia and Tsang's method (2000), float64."""
    shape = alpha.detach().double()
    d = torch.where(shape < 1, shape + 1, shape)[..., None] - 1 / 3
    z, u = normal(numbers[..., :TRIES]), open_unit(numbers[..., TRIES : 2 * TRIES])
    v = (1 + z / torch.sqrt(9 * d)).clamp(min=0) ** 3
    accepted = (v > 0) & (torch.log(u) < z**2 / 2 + d * (1 - v + torch.log(v.clamp(min=1e-300))))
    first = accepted.to(torch.int8).argmax(-1, keepdim=True)
    values = (d * v).gather(-1, first).squeeze(-1)
    boost = torch.where(shape < 1, torch.log(open_unit(numbers[..., -1])) / shape, 0.0)
    values = (values * torch.exp(boost)).clamp(min=torch.finfo(alpha.dtype).tiny)
    return _with_gradient(alpha, values) if needs_gradient(alpha) else values


def _with_gradient(alpha: Tensor, values: Tensor) -> Tensor:
    """Return the values with their implicit derivative with respect to the shape parameter."""
    slope = gamma_slope(alpha.detach(), values.to(alpha.dtype))
    return values + (alpha - alpha.detach()) * slope
