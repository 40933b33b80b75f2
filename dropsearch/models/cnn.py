"""A convolutional network with a fully connected head."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

from torch import Tensor, nn

from dropsearch.core.constraints import Constraint
from dropsearch.models.layers import (
    ACTIVATIONS,
    Activation,
    Depth,
    Flag,
    Norm,
    Width,
    Widths,
    arrange,
    dense,
    needs_bias,
)
from dropsearch.models.network import Layout, Network, Rates

DropoutUnit = Literal["element", "channel"]


class CNN(Network):
    """Blocks of convolution, norm, activation, dropout and pooling, followed by fully connected layers.

    Convolutions are 2d for images and 1d for signals and sequences, where the features of a sequence are its channels.
    Sites: ``block1.dropout`` …, ``head1.dropout`` …, and ``input.dropout`` if enabled. A block whose input is smaller
    than `pool` does not pool.

    Args:
        input_shape: Shape of an example, ``(C, H, W)``, ``(C, L)`` or ``(T, F)``.
        classes: Number of classes.
        layout: Layout of `input_shape`; see `InputShape`.
        norm: Norm after each convolution and each layer of the head; "layer" normalizes the output of a convolution
            over channels and positions together (a GroupNorm with one group).
        dropout: One rate for all sites, or rates by site name.
        channels: Number of channels of each block.
        kernel_size: Odd kernel size; the input is padded so that convolutions keep its size.
        convs_per_block: Number of convolutions per block; the block's dropout follows the last one.
        pool: Kernel size and stride of the max pooling of each block; 1 disables pooling.
        head: Widths of the fully connected layers before the output.
        activation: relu, gelu, tanh, leaky_relu or silu.
        dropout_unit: Whether blocks drop single activations ("element") or whole feature maps ("channel", Tompson et
            al. 2015); the input and the head always drop single activations.
        input_dropout: Whether the input is a site.
        dropout_before_norm: Whether norms follow dropout instead of preceding it (see `arrange`).

    Raises:
        ValueError: An option is out of range.
    """

    name = "cnn"

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: Width,
        *,
        layout: Layout | None = None,
        norm: Norm = "none",
        dropout: Rates = 0.0,
        channels: Widths = (32, 64),
        kernel_size: Annotated[int, Constraint("int", at_least=1, at_most=63, odd=True)] = 3,
        convs_per_block: Depth = 1,
        pool: Depth = 2,
        head: Widths = (128,),
        activation: Activation = "relu",
        dropout_unit: Annotated[DropoutUnit, Constraint(one_of=get_args(DropoutUnit))] = "element",
        input_dropout: Flag = False,
        dropout_before_norm: Flag = False,
    ) -> None:
        super().__init__(
            input_shape,
            classes,
            layout,
            norm,
            channels=list(channels),
            kernel_size=kernel_size,
            convs_per_block=convs_per_block,
            pool=pool,
            head=list(head),
            activation=activation,
            dropout_unit=dropout_unit,
            input_dropout=input_dropout,
            dropout_before_norm=dropout_before_norm,
        )
        if input_dropout:
            self.input = nn.Sequential(OrderedDict(dropout=nn.Dropout()))
        features = self._add_blocks(**self._options)
        self.flatten = nn.Flatten()
        widths = [features, *head]
        for number, (before, after) in enumerate(pairwise(widths), start=1):
            layer = dense(before, after, norm, activation, dropout_before_norm=dropout_before_norm)
            self.add_module(f"head{number}", layer)
        self.output = nn.Linear(widths[-1], classes)
        self.set_rates(dropout)

    def _add_blocks(self, *, channels: Sequence[int], pool: int, **options: Any) -> int:
        sides = self.shape.sides
        before = self.shape.channels
        for number, after in enumerate(channels, start=1):
            block = _block(len(sides), before, after, **options)
            if 1 < pool <= min(sides):
                block["pool"] = (nn.MaxPool2d if len(sides) == 2 else nn.MaxPool1d)(pool)
                sides = tuple(side // pool for side in sides)
            self.add_module(f"block{number}", nn.Sequential(block))
            before = after
        return before * math.prod(sides)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return logits `[batch, classes]`; sequences must be zero-padded to T steps."""
        if self.shape.layout == "sequence":
            x = x.transpose(1, 2)
        for layer in self.children():
            x = layer(x)
        return x


def _block(
    dimensions: int,
    before: int,
    after: int,
    *,
    norm: Norm,
    kernel_size: int,
    convs_per_block: int,
    activation: Activation,
    dropout_unit: DropoutUnit,
    dropout_before_norm: bool,
    **_: Any,
) -> OrderedDict[str, nn.Module]:
    conv = nn.Conv2d if dimensions == 2 else nn.Conv1d
    channel_dropout = nn.Dropout2d if dimensions == 2 else nn.Dropout1d
    dropout = channel_dropout() if dropout_unit == "channel" else nn.Dropout()
    block: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, convs_per_block + 1):
        suffix = str(number) if convs_per_block > 1 else ""
        is_last = number == convs_per_block
        bias = needs_bias(norm, dropout_before_norm=dropout_before_norm and is_last)
        block |= arrange(
            {f"conv{suffix}": conv(before, after, kernel_size, padding=kernel_size // 2, bias=bias)},
            {f"norm{suffix}": _make_conv_norm(norm, dimensions, after)},
            {f"activation{suffix}": ACTIVATIONS[activation]()},
            {"dropout": dropout} if is_last else {},
            dropout_before_norm=dropout_before_norm and is_last,
        )
        before = after
    return block


def _make_conv_norm(norm: Norm, dimensions: int, channels: int) -> nn.Module | None:
    if norm == "none":
        return None
    if norm == "layer":
        return nn.GroupNorm(1, channels)
    return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm1d(channels)
