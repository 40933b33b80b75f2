"""A recurrent network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor, nn

from dropsearch.core.constraints import Constraint
from dropsearch.models.layers import Depth, Flag, Norm, Width, make_norm, make_step_norm, normalize
from dropsearch.models.network import Layout, Network, Rates, as_steps, at_least_one, real_steps

Cell = Literal["lstm", "gru"]
Mask = Literal["sequence", "step"]

_CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


class RNN(Network):
    """LSTM or GRU layers with dropout at the input, between layers, and on the output of the last step.

    The steps are rows of images, samples of signals or steps of sequences (see `as_steps`). Sequences are processed
    with padding and the output is read at the last real step, which equals packing since the network is causal. Sites:
    ``input.dropout``, ``between1.dropout`` … after each layer but the last, and ``output.dropout``. A norm follows each
    layer; the statistics of BatchNorm exclude padding.

    Args:
        input_shape: Shape of an example, ``(C, H, W)``, ``(C, L)`` or ``(T, F)``.
        classes: Number of classes.
        layout: Layout of `input_shape`; see `InputShape`.
        norm: Norm over the features after each recurrent layer.
        dropout: One rate for all sites, or rates by site name.
        cell: lstm or gru.
        hidden_size: Width of each layer.
        layers: Number of recurrent layers.
        mask: "sequence" drops the same features at every step of an example (Gal & Ghahramani 2016, but without dropout
            of recurrent connections); "step" draws a new mask at each step.
        input_dropout: Whether the input is a site.
        dropout_before_norm: Whether norms follow dropout instead of preceding it.

    Raises:
        ValueError: An option is out of range.
    """

    name = "rnn"

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: Width,
        *,
        layout: Layout | None = None,
        norm: Norm = "none",
        dropout: Rates = 0.0,
        cell: Annotated[Cell, Constraint(one_of=get_args(Cell))] = "lstm",
        hidden_size: Width = 64,
        layers: Depth = 1,
        mask: Annotated[Mask, Constraint(one_of=get_args(Mask))] = "sequence",
        input_dropout: Flag = True,
        dropout_before_norm: Flag = False,
    ) -> None:
        super().__init__(
            input_shape,
            classes,
            layout,
            norm,
            cell=cell,
            hidden_size=hidden_size,
            layers=layers,
            mask=mask,
            input_dropout=input_dropout,
            dropout_before_norm=dropout_before_norm,
        )
        self.layers = layers
        if input_dropout:
            self.input = Between(mask, nn.Identity())
        width = self.shape.step_features
        for number in range(1, layers + 1):
            self.add_module(f"layer{number}", Recurrent(cell, width, hidden_size))
            if number < layers:
                between = Between(mask, make_step_norm(norm, hidden_size), dropout_before_norm)
                self.add_module(f"between{number}", between)
            width = hidden_size
        self.output = LastStep(width, classes, make_norm(norm, width), dropout_before_norm)
        self.set_rates(dropout)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return logits `[batch, classes]`.

        Args:
            x: A batch in this network's layout.
            lengths: Number of real steps of each example, `[batch]`; later steps are ignored. An empty example is read
                as one step.
        """
        lengths = at_least_one(lengths)
        steps = as_steps(x, self.shape.layout)
        real = real_steps(steps, lengths)
        for layer in self.children():
            if layer is not self.output:
                steps = layer(steps, real)
        return self.output(steps, lengths)


class Recurrent(nn.Module):
    """One LSTM or GRU layer that returns its outputs only."""

    def __init__(self, cell: Cell, features: int, hidden_size: int) -> None:
        super().__init__()
        self.rnn = _CELLS[cell](features, hidden_size, batch_first=True)

    def forward(self, steps: Tensor, real: Tensor | None) -> Tensor:
        """Return the outputs `[batch, steps, hidden_size]`."""
        return self.rnn(steps)[0]


class Between(nn.Module):
    """Norm and dropout over `[batch, steps, features]`; with `dropout_before_norm` in reverse order."""

    def __init__(self, mask: Mask, norm: nn.Module, dropout_before_norm: bool = False) -> None:
        super().__init__()
        self.mask = mask
        self.dropout_before_norm = dropout_before_norm
        self.norm = norm
        self.dropout = nn.Dropout1d() if mask == "sequence" else nn.Dropout()

    def forward(self, steps: Tensor, real: Tensor | None) -> Tensor:
        """Return steps of the same shape."""
        if self.dropout_before_norm:
            return normalize(self.norm, self._drop(steps), real)
        return self._drop(normalize(self.norm, steps, real))

    def _drop(self, steps: Tensor) -> Tensor:
        if self.mask == "step":
            return self.dropout(steps)
        # Dropout1d drops channels of [batch, channels, length], so each mask entry applies to all steps of a feature.
        return self.dropout(steps.transpose(1, 2)).transpose(1, 2)


class LastStep(nn.Module):
    """A linear classifier on the last real step of each example."""

    def __init__(self, features: int, classes: int, norm: nn.Module | None, dropout_before_norm: bool) -> None:
        super().__init__()
        self.dropout_before_norm = dropout_before_norm
        self.norm = norm or nn.Identity()
        self.dropout = nn.Dropout()
        self.linear = nn.Linear(features, classes)

    def forward(self, steps: Tensor, lengths: Tensor | None) -> Tensor:
        """Return logits `[batch, classes]`."""
        last = _last(steps, lengths)
        if self.dropout_before_norm:
            return self.linear(self.norm(self.dropout(last)))
        return self.linear(self.dropout(self.norm(last)))


def _last(steps: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return steps[:, -1]
    index = (lengths - 1).view(-1, 1, 1).expand(-1, 1, steps.shape[2])
    return torch.gather(steps, 1, index).squeeze(1)
