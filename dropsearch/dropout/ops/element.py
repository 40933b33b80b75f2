"""Dropout of single activations and of whole channels: `nn.Dropout`, `nn.Dropout1d` to `3d`, and their functions.

Srivastava et al. 2014; Tompson et al. 2015 for channels.
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
"""Applies a rate and the bits of a mask to activations."""


def scaled(x: Tensor, rate: Rate, bits: Tensor) -> Tensor:
    """Set dropped activations to 0 and divide the others by 1 - rate."""
    return (x * rate.mask(bits, x.dtype)).to(x.dtype)


def reader(apply: Apply, *, channels: bool, inplace: bool | None = None) -> Callable[..., DropCall]:
    """Return a parser of calls of a dropout function with a multiplicative mask.

    Args:
        apply: Applies the mask.
        channels: Whether it drops whole channels of an input `[batch, channels, ...]`.
        inplace: Whether it works in place; None if that is an argument of the call.
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


def functions(*names: str) -> tuple[Any, ...]:
    """Return the dropout functions with these names in `torch.nn.functional` and `torch`."""
    return tuple(getattr(owner, name) for name in names for owner in (F, torch) if hasattr(owner, name))


OPS: Mapping[Any, CallOp] = {
    **dict.fromkeys(functions("dropout"), CallOp("dropout", reader(scaled, channels=False))),
    torch.dropout_: CallOp("dropout", reader(scaled, channels=False, inplace=True)),
    **dict.fromkeys(
        functions("dropout1d", "dropout2d", "dropout3d", "feature_dropout"),
        CallOp("channel dropout", reader(scaled, channels=True)),
    ),
    torch.feature_dropout_: CallOp("channel dropout", reader(scaled, channels=True, inplace=True)),
}
