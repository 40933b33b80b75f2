"""Dropout of single activations and of whole channels: `nn.Dropout`, `nn.Dropout1d` to `3d`, and alpha dropout.

Srivastava et al. 2014; Tompson et al. 2015 for channels; Klambauer et al. 2017 for alpha dropout, which preserves mean
and variance after a SELU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dropsearch.dropout.ops.call import CallOp, DropCall
from dropsearch.dropout.rates import Rate

Apply = Callable[[Tensor, Rate, Tensor], Tensor]

SELU_SATURATION = -1.7580993408473766
"""Limit of SELU at minus infinity, the value of dropped activations."""


def scaled(x: Tensor, rate: Rate, bits: Tensor) -> Tensor:
    """Set dropped activations to 0 and divide the others by 1 - rate."""
    return (x * rate.mask(bits, x.dtype)).to(x.dtype)


def alpha_drop(x: Tensor, rate: Rate, bits: Tensor) -> Tensor:
    """Set dropped activations to SELU's negative limit and rescale to preserve mean and variance."""
    keep = rate.keep(bits, x.dtype)
    p = rate.value.to(x.dtype) if isinstance(rate.value, Tensor) else rate.value
    a = ((1 - p) * (1 + p * SELU_SATURATION**2)) ** -0.5 if isinstance(p, Tensor) or p < 1 else 0.0
    return a * (x * keep + SELU_SATURATION * (1 - keep)) - a * SELU_SATURATION * p


def _reader(apply: Apply, *, channels: bool, inplace: bool | None = None) -> Callable[..., DropCall]:
    """Return a parser of calls that drop activations, or whole channels of an input `[batch, channels, ...]`.

    `inplace` is None if it is an argument of the call.
    """

    def read(
        op: CallOp, _: Any, input: Tensor, p: float = 0.5, training: bool = True, inplace_: bool = False, **more: Any
    ) -> DropCall:
        training = more.get("train", training)  # name of this argument in the functions of `torch`
        into = more.get("inplace", inplace_) if inplace is None else inplace
        shape = torch.Size((*input.shape[:2], *(1 for _ in input.shape[2:]))) if channels else input.shape

        def dropped(rate: Rate, bits: Tensor) -> Tensor:
            result = apply(input, rate, bits)
            return input.copy_(result) if into else result

        return DropCall(op, input, p, training, shape, dropped, lambda: input)

    return read


def _family(name: str, apply: Apply, *functions: str, channels: bool) -> dict[Any, CallOp]:
    """Return the operations of functions in `torch.nn.functional` and `torch`; in place if the name ends with ``_``."""
    found: dict[Any, CallOp] = {}
    for function in functions:
        op = CallOp(name, _reader(apply, channels=channels, inplace=function.endswith("_") or None))
        found |= {getattr(owner, function): op for owner in (F, torch) if hasattr(owner, function)}
    return found


OPS: Mapping[Any, CallOp] = {
    **_family("dropout", scaled, "dropout", "dropout_", channels=False),
    **_family(
        "channel dropout",
        scaled,
        *("dropout1d", "dropout2d", "dropout3d", "feature_dropout", "feature_dropout_"),
        channels=True,
    ),
    **_family("alpha dropout", alpha_drop, "alpha_dropout", "alpha_dropout_", channels=False),
    **_family("feature alpha dropout", alpha_drop, "feature_alpha_dropout", "feature_alpha_dropout_", channels=True),
}
