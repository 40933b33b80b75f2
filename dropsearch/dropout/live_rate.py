"""A rate that passes through user code as one number and differs between rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

STAND_IN = 0.5
"""What code that looks at the rate as a number sees, to find out whether it drops at all."""


class LiveRate(float):
    """A number that remembers, through arithmetic, the tensor that it stands for.

    Under ``vmap`` the rates of the rows are one tensor, but code that drops computes with a number: it compares it
    with 0, subtracts it from 1 and hands the result to PyTorch, where the control puts the tensor in its place.
    """

    tensor: Tensor

    def __new__(cls, tensor: Tensor, number: float = STAND_IN) -> LiveRate:
        """Make it of a float64 tensor without dimensions."""
        self = super().__new__(cls, number)
        self.tensor = tensor
        return self

    def __float__(self) -> float:
        """Refuse: what is computed from a plain number would be the same in all rows.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("an operation that drops turns its rate into a plain number, which is one for all rows")

    def __reduce__(self) -> Any:
        """Copy as a plain number."""
        return float, (float.__float__(self),)


def _computed(name: str) -> Callable[[LiveRate, Any], Any]:
    on_float = getattr(float, name)

    def compute(self: LiveRate, other: Any) -> Any:
        number = on_float(self, other)
        if number is NotImplemented:  # a tensor, whose own arithmetic the control sees
            return NotImplemented
        value = getattr(other, "tensor", other)
        return LiveRate(getattr(self.tensor, name)(value), number)

    return compute


for _name in ("add", "sub", "mul", "truediv", "pow", "radd", "rsub", "rmul", "rtruediv", "rpow"):
    setattr(LiveRate, f"__{_name}__", _computed(f"__{_name}__"))


def of_tensor(value: Any, like: Tensor | None = None) -> Any:
    """Return the tensor that a number stands for, in the floating type of `like`; anything else as it is."""
    if not isinstance(value, LiveRate):
        return value
    return value.tensor if like is None or not like.is_floating_point() else value.tensor.to(like.dtype)
