"""Convolutions of an array, row by row.

`torch.func.vmap` makes one grouped convolution of all rows. Which of the two is faster depends on the device, the
shapes and the library; `plan` measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = {F.conv1d: F.conv1d, F.conv2d: F.conv2d, F.conv3d: F.conv3d}


class _ByRow(torch.autograd.Function):
    """A convolution whose rule for `vmap` is a loop over rows, each an ordinary convolution.

    Gradients flow through those: outside of `vmap` this function is not differentiated, and has no backward.
    """

    @staticmethod
    def forward(convolve: Any, options: tuple[Any, ...], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(x, weight, bias, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        convolve, options, *parts = args

        def of(row: int) -> list[Tensor | None]:
            chosen = zip(parts, in_dims[2:], strict=True)
            return [part if part is None or dim is None else part.select(dim, row) for part, dim in chosen]

        return torch.stack([convolve(*of(row), *options) for row in range(info.batch_size)]), 0


class RowConvolutions(TorchFunctionMode):
    """Runs every convolution under `torch.func.vmap` row by row; gradients flow through the rows' own."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        convolve = _CONVOLUTIONS.get(func)
        if convolve is None:
            return func(*args, **(kwargs or {}))
        return _ByRow.apply(convolve, *_arranged(*args, **(kwargs or {})))


def _arranged(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Any, ...]:
    return (stride, padding, dilation, groups), input, weight, bias
