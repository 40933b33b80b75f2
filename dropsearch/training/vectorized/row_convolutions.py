"""Convolutions under `torch.func.vmap` as one convolution per row.

By default vmap turns the convolutions of all rows into one grouped convolution. Which of the two is faster depends on
device, shapes and library, so `planning.throughput` measures both.
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
    """A convolution with a vmap rule that loops over the rows and runs an ordinary convolution for each.

    Gradients flow through these convolutions. The function itself is never differentiated, so it has no `backward`.
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

        def row_inputs(row: int) -> list[Tensor | None]:
            pairs = zip(parts, in_dims[2:], strict=True)
            return [part if part is None or dim is None else part.select(dim, row) for part, dim in pairs]

        return torch.stack([convolve(*row_inputs(row), *options) for row in range(info.batch_size)]), 0


class RowConvolutions(TorchFunctionMode):
    """Runs each convolution under `torch.func.vmap` row by row."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        convolve = _CONVOLUTIONS.get(func)
        if convolve is None:
            return func(*args, **(kwargs or {}))
        return _ByRow.apply(convolve, *_positional(*args, **(kwargs or {})))


def _positional(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Any, ...]:
    """Return the arguments of a convolution in the order that `_ByRow.apply` expects."""
    return (stride, padding, dilation, groups), input, weight, bias
