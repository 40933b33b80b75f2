"""Random numbers of operations with their own code, computed from a site's random bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dropsearch.dropout.mask_bits import LEVELS
from dropsearch.dropout.rates import of_tensor

Bits = Callable[[torch.Size, torch.device], Tensor]
"""Maps a shape and a device to int16 random bits."""


def uniform(bits: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Return numbers that are uniform over the multiples of 1/65536 in [low, high)."""
    return low + (high - low) * ((bits.float() + LEVELS // 2) / LEVELS)


def bernoulli(bits: Tensor, share: Any = 0.5) -> Tensor:
    """Return 1 with probability `share`, else 0. With a rate of 1 - share these are the kept units of a mask."""
    share = of_tensor(share)
    if not isinstance(share, Tensor):
        level = min(round((1 - share) * LEVELS), LEVELS - 1) - LEVELS // 2
        return ((bits >= level) & (share > 0)).float()
    level = ((1 - share.double()) * LEVELS).round().clamp(max=LEVELS - 1) - LEVELS // 2
    return ((bits.double() >= level) & (share > 0)).float()


def normal(bits: Tensor, mean: Any = 0.0, std: Any = 1.0) -> Tensor:
    """Return normal numbers: quantiles of 65,536 equal parts, within 4.4 standard deviations."""
    quantile = torch.erfinv((2 * (bits.double() + LEVELS // 2) + 1) / LEVELS - 1).float() * math.sqrt(2)
    return of_tensor(mean, quantile) + of_tensor(std, quantile) * quantile


@dataclass(frozen=True)
class _Draw:
    """Computes the result of a PyTorch function that draws from given bits."""

    template: Callable[..., Tensor]
    """Returns an empty tensor of the shape and type of the result."""
    numbers: Callable[..., Tensor]
    first: int | None
    """Position of the distribution's first option in the arguments; None without options."""

    def of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], bits: Bits) -> Tensor:
        made = {name: value for name, value in kwargs.items() if name not in ("generator", "p")}
        like = self.template(*args, **made)
        options = () if self.first is None else args[self.first :]
        named = {"share": kwargs["p"]} if "p" in kwargs else {}
        return self.numbers(bits(like.shape, like.device), *options, **named).to(like.dtype)


def _itself(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


DRAWS: Mapping[str, _Draw] = {
    "rand": _Draw(torch.empty, uniform, None),
    "rand_like": _Draw(torch.empty_like, uniform, None),
    "uniform_": _Draw(_itself, uniform, 1),
    "bernoulli": _Draw(lambda x, *_, **__: torch.empty_like(x), bernoulli, 0),
    "bernoulli_": _Draw(_itself, bernoulli, 1),
    "randn": _Draw(torch.empty, normal, None),
    "randn_like": _Draw(torch.empty_like, normal, None),
    "normal_": _Draw(_itself, normal, 1),
}
"""Computation from bits, by the name of the function."""

FACTORIES = frozenset(
    {"empty", "empty_like", "new", "new_empty", "zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones"}
)
"""Names of functions that create a tensor which later code may fill in place."""

_FILLED = {"full": torch.ones, "full_like": torch.ones_like}


def draw_of(function: Any) -> _Draw | None:
    """Return the draw of a function, or None if it does not draw or is unknown."""
    return DRAWS.get(getattr(function, "__name__", ""))


def drawn(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], bits: Bits) -> Tensor:
    """Return the result of a drawing call, computed from bits; in-place calls fill their tensor."""
    draw = draw_of(function)
    assert draw is not None
    numbers = draw.of(args, kwargs, bits)
    if not function.__name__.endswith("_"):
        return numbers
    into: Tensor = next(iter(args))
    try:
        return into.copy_(numbers)
    except RuntimeError:  # under vmap, an unbatched tensor cannot hold a row's numbers
        return numbers


def called_live(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run a function with `LiveRate` numbers replaced by their tensors."""
    name = getattr(function, "__name__", "")
    if name in _FILLED and len(args) > 1:
        ones = _FILLED[name](args[0], *args[2:], **kwargs)
        return ones * of_tensor(args[1], ones)
    if name == "new_full" and len(args) > 2:
        ones = args[0].new_ones(args[1], *args[3:], **kwargs)
        return ones * of_tensor(args[2], ones)
    if name in ("tensor", "as_tensor", "scalar_tensor") and args:
        return args[0].tensor.to(kwargs.get("dtype") or torch.get_default_dtype())
    like = next((arg for arg in args if isinstance(arg, Tensor)), None)
    return function(*[of_tensor(arg, like) for arg in args], **{n: of_tensor(v, like) for n, v in kwargs.items()})
