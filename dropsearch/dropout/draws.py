"""The random numbers that an operation draws by its own code, made of a site's random bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dropsearch.dropout.live_rate import of_tensor
from dropsearch.dropout.mask_bits import LEVELS

Bits = Callable[[torch.Size, torch.device], Tensor]
"""Given the shape of what is drawn and its device, returns int16 random bits."""


def uniform(bits: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Return numbers that are uniform over the multiples of 1/65536 in [low, high)."""
    return low + (high - low) * ((bits.float() + LEVELS // 2) / LEVELS)


def bernoulli(bits: Tensor, share: Any = 0.5) -> Tensor:
    """Return 1 with the probability `share`, else 0: where 1 - share is a rate, the units that its mask keeps."""
    share = of_tensor(share)
    if not isinstance(share, Tensor):
        level = min(round((1 - share) * LEVELS), LEVELS - 1) - LEVELS // 2
        return ((bits >= level) & (share > 0)).float()
    level = ((1 - share.double()) * LEVELS).round().clamp(max=LEVELS - 1) - LEVELS // 2
    return ((bits.double() >= level) & (share > 0)).float()


def normal(bits: Tensor, mean: Any = 0.0, std: Any = 1.0) -> Tensor:
    """Return normal numbers: the quantiles of 65,536 equal parts, all within 4.4 standard deviations."""
    quantile = torch.erfinv((2 * (bits.double() + LEVELS // 2) + 1) / LEVELS - 1).float() * math.sqrt(2)
    return of_tensor(mean, quantile) + of_tensor(std, quantile) * quantile


class _Draw:
    """How a function of PyTorch that draws is computed from bits."""

    def __init__(self, template: Callable[..., Tensor], numbers: Callable[..., Tensor], first: int | None) -> None:
        self.template = template
        """Returns an empty tensor of the shape and type of the result."""
        self.numbers = numbers
        self.first = first
        """Where the options of the distribution begin in the arguments; None where there are none."""

    def of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], bits: Bits) -> Tensor:
        made = {name: value for name, value in kwargs.items() if name not in ("generator", "p")}
        like = self.template(*args, **made)
        options = () if self.first is None else args[self.first :]
        named = {"share": kwargs["p"]} if "p" in kwargs else {}
        return self.numbers(bits(like.shape, like.device), *options, **named).to(like.dtype)


def _itself(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _like(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(x)


DRAWS: Mapping[str, _Draw] = {
    "rand": _Draw(torch.empty, uniform, None),
    "rand_like": _Draw(torch.empty_like, uniform, None),
    "uniform_": _Draw(_itself, uniform, 1),
    "bernoulli": _Draw(_like, lambda bits, *share, **named: bernoulli(bits, *share, **named), 0),
    "bernoulli_": _Draw(_itself, bernoulli, 1),
    "randn": _Draw(torch.empty, normal, None),
    "randn_like": _Draw(torch.empty_like, normal, None),
    "normal_": _Draw(_itself, normal, 1),
}
"""By the name of the function, how what it draws is made of bits."""

FACTORIES = frozenset(
    {"empty", "empty_like", "new", "new_empty", "zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones"}
)
"""Names of the functions that make a tensor which later code may fill in place."""

_FILLED = {"full": torch.ones, "full_like": torch.ones_like}


def draw_of(function: Any) -> _Draw | None:
    """Return how a function draws; None for one that does not, or in another way."""
    return DRAWS.get(getattr(function, "__name__", ""))


def drawn(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], bits: Bits) -> Tensor:
    """Return what a call that draws returns, made of bits; a call that works in place fills its tensor."""
    draw = draw_of(function)
    assert draw is not None
    numbers = draw.of(args, kwargs, bits)
    if not function.__name__.endswith("_"):
        return numbers
    into: Tensor = next(iter(args))
    try:
        return into.copy_(numbers)
    except RuntimeError:  # under vmap a tensor that all rows share takes no numbers of one row
        return numbers


def called_live(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run a function with tensors in the place of numbers that stand for the rates of rows."""
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
