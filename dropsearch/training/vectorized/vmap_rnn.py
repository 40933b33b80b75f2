"""LSTM, GRU and plain RNN unrolled step by step, since `torch.func.vmap` has no rule for the fused kernels.

Parameters, gate order and results equal those of `nn.LSTM`, `nn.GRU` and `nn.RNN`. The formulas are those of PyTorch's
documentation (Hochreiter & Schmidhuber 1997; Cho et al. 2014 with the reset gate after the product).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State, Tensor, Tensor | None], State]
"""Maps the projected input of a step, the state, and the recurrent weight and bias to the next state."""


def lstm_cell(projected: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    """Return hidden and cell state `[batch, hidden]` after one step; gate order: input, forget, cell, output."""
    hidden, cell = state
    gates = projected + F.linear(hidden, weight, bias)
    i, f, g, o = gates.chunk(4, -1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def gru_cell(projected: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    """Return the hidden state `[batch, hidden]` after one step; gate order: reset, update, new."""
    (hidden,) = state
    r, z, n = projected.chunk(3, -1)
    hr, hz, hn = F.linear(hidden, weight, bias).chunk(3, -1)
    new = torch.tanh(n + torch.sigmoid(r + hr) * hn)
    return (new + torch.sigmoid(z + hz) * (hidden - new),)


def tanh_cell(projected: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    """Return the hidden state `[batch, hidden]` of a plain recurrent network after one step."""
    return (torch.tanh(projected + F.linear(state[0], weight, bias)),)


def relu_cell(projected: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    """Return the hidden state `[batch, hidden]` of a plain recurrent network with ReLU after one step."""
    return (torch.relu(projected + F.linear(state[0], weight, bias)),)


_CELLS = {torch.lstm: lstm_cell, torch.gru: gru_cell, torch.rnn_tanh: tanh_cell, torch.rnn_relu: relu_cell}


def unroll(cell: Cell, steps: Tensor, state: State, weights: Sequence[Tensor], reverse: bool) -> tuple[Tensor, State]:
    """Run a cell over `steps` `[time, batch, features]`; return all hidden states `[time, batch, hidden]` and the last.

    The input projections of the steps are independent of each other, so they are computed in one product.
    """
    w_ih, w_hh, *biases = weights
    b_ih, b_hh = biases or (None, None)
    outputs = []
    for projected in (
        reversed(F.linear(steps, w_ih, b_ih).unbind(0)) if reverse else F.linear(steps, w_ih, b_ih).unbind(0)
    ):
        state = cell(projected, state, w_hh, b_hh)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if reverse else outputs), state


def run_layers(
    cell: Cell,
    x: Tensor,
    initial: State,
    weights: Sequence[Tensor],
    *,
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Run all layers and directions; return the output and the final states as the fused kernels do."""
    x = x.transpose(0, 1) if batch_first else x
    directions, tensors_per_layer = (2 if bidirectional else 1), (4 if has_biases else 2)
    finals: list[State] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            layer_weights = weights[index * tensors_per_layer : (index + 1) * tensors_per_layer]
            start = tuple(part[index] for part in initial)
            output, final = unroll(cell, x, start, layer_weights, reverse=direction == 1)
            outputs.append(output)
            finals.append(final)
        x = torch.cat(outputs, -1) if bidirectional else outputs[0]
    last = tuple(torch.stack(parts) for parts in zip(*finals, strict=True))
    return (x.transpose(0, 1) if batch_first else x, *last)


def disable_flatten_parameters(module: nn.Module) -> None:
    """Replace `flatten_parameters` of all recurrent layers in a module by a no-op.

    On a GPU that method copies the weights into new contiguous memory, so they would no longer be views of their row.
    It also reads data pointers, which tensors under `vmap` do not have.
    """
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            part.flatten_parameters = _do_nothing  # type: ignore[method-assign]


def _do_nothing() -> None:
    """Do nothing."""


class VmapRNN(TorchFunctionMode):
    """Runs `nn.LSTM`, `nn.GRU` and `nn.RNN` step by step instead of with the fused kernel.

    Packed sequences, whose shapes depend on data, are passed to the fused kernel, which fails under `vmap`. Dropout
    between layers is the control's, which hands on one layer at a time.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        cell = _CELLS.get(func)
        if cell is None or not isinstance(args[3], bool):
            return func(*args, **(kwargs or {}))
        x, initial, weights, has_biases, num_layers, dropout, training, bidirectional, batch_first = args
        if dropout > 0 and training and num_layers > 1:  # not handled by a control
            return func(*args, **(kwargs or {}))
        # With projections (`proj_size`) each layer has a fifth tensor.
        if len(weights) != num_layers * (2 if bidirectional else 1) * (4 if has_biases else 2):
            return func(*args, **(kwargs or {}))
        return run_layers(
            cell,
            x,
            tuple(initial) if isinstance(initial, list | tuple) else (initial,),
            weights,
            has_biases=has_biases,
            num_layers=num_layers,
            bidirectional=bidirectional,
            batch_first=batch_first,
        )
