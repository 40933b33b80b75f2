"""A multilayer perceptron."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from dropsearch.models.layers import Activation, Flag, Norm, Width, Widths, dense
from dropsearch.models.network import Layout, Network, Rates


class MLP(Network):
    """Fully connected layers on the flattened input.

    Sites: ``input.dropout``, and ``hidden1.dropout``, ``hidden2.dropout`` … after each activation.

    Args:
        input_shape: Shape of an example, ``(C, H, W)``, ``(C, L)`` or ``(T, F)``.
        classes: Number of classes.
        layout: Layout of `input_shape`; see `InputShape`.
        norm: Norm between each hidden layer and its activation.
        dropout: One rate for all sites, or rates by site name.
        hidden: Widths of the hidden layers; empty for a linear classifier.
        activation: relu, gelu, tanh, leaky_relu or silu.
        input_dropout: Whether the input is a site.
        dropout_before_norm: Whether norms follow dropout instead of preceding it (see `arrange`).

    Raises:
        ValueError: An option is out of range.
    """

    name = "mlp"

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: Width,
        *,
        layout: Layout | None = None,
        norm: Norm = "none",
        dropout: Rates = 0.0,
        hidden: Widths = (128, 128),
        activation: Activation = "relu",
        input_dropout: Flag = True,
        dropout_before_norm: Flag = False,
    ) -> None:
        super().__init__(
            input_shape,
            classes,
            layout,
            norm,
            hidden=list(hidden),
            activation=activation,
            input_dropout=input_dropout,
            dropout_before_norm=dropout_before_norm,
        )
        self.input = nn.Sequential(OrderedDict(flatten=nn.Flatten()))
        if input_dropout:
            self.input.add_module("dropout", nn.Dropout())
        widths = [self.shape.numbers, *hidden]
        for number, (width_in, width_out) in enumerate(pairwise(widths), start=1):
            layer = dense(width_in, width_out, norm, activation, dropout_before_norm=dropout_before_norm)
            self.add_module(f"hidden{number}", layer)
        self.output = nn.Linear(widths[-1], classes)
        self.set_rates(dropout)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return logits `[batch, classes]`; sequences must be zero-padded to T steps."""
        for layer in self.children():
            x = layer(x)
        return x
