"""Convolutions of an array: row by row, or as matrix products.

`torch.func.vmap` makes one grouped convolution of all rows. Which of the three is the fastest depends on the device,
the shapes and the library; `plan` measures.
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


class ConvolutionProducts(TorchFunctionMode):
    """Runs a convolution as the product of its patches and its weights: under `vmap` one batched product."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _CONVOLUTIONS:
            options, *parts = _arranged(*args, **(kwargs or {}))
            if (settings := _simple(options, *parts[:2])) is not None:
                return _product(*settings, *parts)
        return func(*args, **(kwargs or {}))


def _simple(options: tuple[Any, ...], x: Tensor, weight: Tensor) -> tuple[list[int], list[int]] | None:
    """Return stride and padding of each dimension; None where a convolution is dilated, grouped or not of a batch."""
    stride, padding, dilation, groups = options
    count = weight.dim() - 2
    if groups != 1 or isinstance(padding, str) or x.dim() != weight.dim() or set(_each(dilation, count)) != {1}:
        return None
    return _each(stride, count), _each(padding, count)


def _each(option: Any, count: int) -> list[int]:
    values = [option] if isinstance(option, int) else list(option)
    return values * count if len(values) == 1 else values


def _product(stride: list[int], padding: list[int], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if any(padding):
        x = F.pad(x, [width for width in reversed(padding) for _ in range(2)])
    for dim, step in enumerate(stride, start=2):
        x = x.unfold(dim, weight.shape[dim], step)
    spatial = list(range(2, weight.dim()))
    x = x.permute(0, *spatial, 1, *(dim + len(spatial) for dim in spatial))  # [batch, *places, channels, *kernel]
    places = x.shape[: weight.dim() - 1]
    answer = x.reshape(-1, weight[0].numel()) @ weight.flatten(1).t()
    answer = answer if bias is None else answer + bias
    return answer.view(*places, len(weight)).movedim(-1, 1)
