"""A rate that is a number in user code and a tensor over rows in PyTorch calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

STAND_IN = 0.5
"""The value of the number, which code may compare with 0 to decide whether to drop."""


class LiveRate(float):
    """A number that represents a tensor, also through arithmetic.

    Under ``vmap`` the rates of the rows are one tensor, but dropout code computes with numbers: it compares the rate
    with 0, subtracts it from 1 and passes the result to PyTorch, where the control replaces it by the tensor.
    """

    tensor: Tensor

    def __new__(cls, tensor: Tensor, number: float = STAND_IN) -> LiveRate:
        """Create it from a float64 tensor without dimensions."""
        self = super().__new__(cls, number)
        self.tensor = tensor
        return self

    def __float__(self) -> float:
        """Raise an error, since results from a plain number would be the same in all rows.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            "a dropout operation converts its rate to a plain number, which would be the same in all rows"
        )

    def __reduce__(self) -> Any:
        """Copy as a plain number."""
        return float, (float.__float__(self),)


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
