"""A dropout rate in the form used by masks, and as a number in the code of a dropout operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dropsearch._compat.row_values import base_of
from dropsearch.core.errors import InputError
from dropsearch.dropout.mask_bits import LEVELS

_IN_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


def checked_rate(rate: Any, name: str) -> float:
    """Return a user's rate as a float; raise `InputError` unless it is a number in [0, 1]."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise InputError(f"{name} must be a number in [0, 1], the share of activations to drop, got {rate!r}")
    return float(rate)


@dataclass(frozen=True)
class Rate:
    """The probability of dropping an activation: one number, or one per row."""

    value: float | Tensor
    threshold: int | Tensor
    """A unit is kept if its 16 random bits, as int16, are at least this."""
    scale: float | Tensor
    """Factor of kept units: 1 / (1 - rate), and 0 for a rate of 1."""

    @classmethod
    def of(cls, rate: float) -> Rate:
        """Create the rate of one trial; raise ValueError unless it is in [0, 1]."""
        if not 0 <= rate <= 1:
            raise ValueError(f"a dropout rate must be in [0, 1], got {rate}")
        threshold = min(round(rate * LEVELS), LEVELS - 1) - LEVELS // 2
        return cls(rate, threshold, 1 / (1 - rate) if rate < 1 else 0.0)

    @classmethod
    def stack(cls, rates: list[float], *, dtype: torch.dtype, device: torch.device) -> Rate:
        """Create the rates of a site for stacked rows: fields are tensors `[rows]`, the scale has type `dtype`."""
        each = [cls.of(rate) for rate in rates]
        return cls(
            torch.tensor(rates, dtype=torch.float64, device=device),
            torch.tensor([rate.threshold for rate in each], dtype=torch.int16, device=device),
            torch.tensor([rate.scale for rate in each], dtype=dtype, device=device),
        )

    def mask(self, bits: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the mask: 0 for dropped units, `scale` for kept ones, in float32 at least.

        In bfloat16 the scale would have an error of up to 0.4 %, equal for all units.
        """
        wide = dtype if dtype in _IN_NUMPY else torch.promote_types(dtype, torch.float32)
        number = _IN_NUMPY.get(wide)
        if number and isinstance(self.threshold, int) and bits.device.type == "cpu" and base_of(bits) is bits:
            kept = bits.numpy() >= self.threshold  # the same numbers as by torch, whose calls cost more
            return torch.from_numpy(np.asarray(kept * number(self.scale)))
        kept = bits >= self.threshold
        # A product of booleans and a number has the default type: one operation less.
        if isinstance(self.scale, Tensor) or wide is not torch.get_default_dtype():
            kept = kept.to(wide)
        return kept * self.scale

    def keep(self, bits: Tensor, dtype: torch.dtype) -> Tensor:
        """Return 1 for kept and 0 for dropped units, without scaling."""
        kept = (bits >= self.threshold).to(dtype)
        return kept * (self.scale != 0)


class LiveRate(float):
    """A number that represents a tensor, also through arithmetic.

    Under ``vmap`` the rates of the rows are one tensor, but dropout code computes with numbers: it compares the rate
    with 0, subtracts it from 1 and passes the result to PyTorch, where the control replaces it by the tensor. The
    number itself is any above 0.
    """

    tensor: Tensor

    def __new__(cls, tensor: Tensor, number: float = 0.5) -> LiveRate:
        """Create it from a float64 tensor without dimensions."""
        self = super().__new__(cls, number)
        self.tensor = tensor
        return self

    def __float__(self) -> float:
        raise RuntimeError(
            "a dropout operation converts its rate to a plain number, which would be the same in all rows"
        )

    def __reduce__(self) -> Any:
        return float, (float.__float__(self),)


class _OfFloats(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, float)

    def __getattr__(cls, name: str) -> Any:
        return getattr(float, name)


class KeepingFloat(metaclass=_OfFloats):
    """What `float` is in the code of a dropout operation: a `LiveRate` stays one, all else becomes a float."""

    def __new__(cls, value: Any = 0.0) -> Any:
        """Convert a value."""
        return value if isinstance(value, LiveRate) else float(value)


def _computed(name: str) -> Callable[[LiveRate, Any], Any]:
    on_float = getattr(float, name)

    def compute(self: LiveRate, other: Any) -> Any:
        number = on_float(self, other)
        if number is NotImplemented:  # a tensor, whose arithmetic the control sees
            return NotImplemented
        value = getattr(other, "tensor", other)
        return LiveRate(getattr(self.tensor, name)(value), number)

    return compute


for _name in ("add", "sub", "mul", "truediv", "pow", "radd", "rsub", "rmul", "rtruediv", "rpow"):
    setattr(LiveRate, f"__{_name}__", _computed(f"__{_name}__"))


def of_tensor(value: Any, like: Tensor | None = None) -> Any:
    """Return the tensor that a number represents, in the floating type of `like`; other values unchanged."""
    if not isinstance(value, LiveRate):
        return value
    return value.tensor if like is None or not like.is_floating_point() else value.tensor.to(like.dtype)


_FILLED = {"full": torch.ones, "full_like": torch.ones_like}


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
