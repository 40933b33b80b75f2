"""Dropout between the layers of `nn.LSTM`, `nn.GRU` and `nn.RNN`, which PyTorch applies inside one fused call.

Here each layer is a separate fused call, and the control drops between them: the outputs of all layers except the last,
with a new mask at each step of the sequence (Zaremba et al. 2014), as in PyTorch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dropsearch.dropout.ops.call import CallOp, DropCall
from dropsearch.dropout.rates import Rate


@dataclass(frozen=True)
class _Layers:
    """The arguments of a fused call of several layers."""

    function: Any
    inputs: tuple[Tensor, ...]
    """The steps and, for packed sequences, the batch size at each step."""
    initial: Tensor | Sequence[Tensor]
    weights: Sequence[Tensor]
    has_biases: bool
    count: int
    rate: float
    training: bool
    is_bidirectional: bool
    layout: tuple[Any, ...]
    """``batch_first``, if sequences are not packed."""

    @classmethod
    def of(cls, function: Any, args: tuple[Any, ...]) -> _Layers:
        first = _first_option(args)
        initial, weights, has_biases, count, rate, training, is_bidirectional, *layout = args[first - 2 :]
        inputs = args[: first - 2]
        return cls(
            function, inputs, initial, weights, has_biases, count, rate, training, is_bidirectional, tuple(layout)
        )

    @property
    def mask_shape(self) -> torch.Size:
        """Shape of the masks for the outputs of all layers except the last."""
        state = self.initial if isinstance(self.initial, Tensor) else self.initial[0]
        return torch.Size((self.count - 1, *self.inputs[0].shape[:-1], state.shape[-1] * self.directions))

    @property
    def directions(self) -> int:
        return 2 if self.is_bidirectional else 1

    def dropped(self, rate: Rate, bits: Tensor) -> tuple[Tensor, ...]:
        x, finals = self.inputs[0], []
        for layer in range(self.count):
            x, *final = self._layer(layer, x)
            finals.append(final)
            if layer < self.count - 1:
                x = (x * rate.mask(bits[layer], x.dtype)).to(x.dtype)
        return (x, *(torch.cat(parts) for parts in zip(*finals, strict=True)))

    def _layer(self, layer: int, x: Tensor) -> tuple[Tensor, ...]:
        here = slice(layer * self.directions, (layer + 1) * self.directions)
        each = len(self.weights) // self.count
        initial = self.initial[here] if isinstance(self.initial, Tensor) else [part[here] for part in self.initial]
        weights = list(self.weights[layer * each : (layer + 1) * each])
        options = (self.has_biases, 1, 0.0, self.training, self.is_bidirectional, *self.layout)
        with warnings.catch_warnings():
            # The weights of one layer are a part of the chunk in which cuDNN expects those of all layers.
            warnings.filterwarnings("ignore", message=".*single contiguous chunk of memory.*")
            return self.function(x, *self.inputs[1:], initial, weights, *options)

    def undropped(self) -> Any:
        options = (self.has_biases, self.count, 0.0, self.training, self.is_bidirectional, *self.layout)
        return self.function(*self.inputs, self.initial, self.weights, *options)


def _first_option(args: tuple[Any, ...]) -> int:
    """Return the position of `has_biases`, after input, states, weights and sizes of packed batches."""
    return 3 if isinstance(args[3], bool) else 4


def _read(op: CallOp, function: Any, *args: Any) -> DropCall | None:
    if len(args) < 9:
        return None  # not a call by PyTorch's modules
    layers = _Layers.of(function, args)
    if layers.count < 2:
        return None
    return DropCall(op, args[0], layers.rate, layers.training, layers.mask_shape, layers.dropped, layers.undropped)


_BETWEEN_LAYERS = CallOp(
    "recurrent dropout", _read, rate_at=lambda args: (_first_option(args) + 2, "dropout"), kind="rnn"
)

OPS: Mapping[Any, CallOp] = dict.fromkeys((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu), _BETWEEN_LAYERS)
