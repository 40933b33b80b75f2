"""LSTM and GRU written out step by step, for `torch.func.vmap`, which has no rule for the fused kernels.

Same parameters, same order of gates and same results as `nn.LSTM` and `nn.GRU`. The formulas are those of
PyTorch's documentation (Hochreiter & Schmidhuber 1997; Cho et al. 2014 with the reset gate after the product).
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
"""From a step's projected input, the state and the recurrent weights to the next state."""


def lstm_cell(projected: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    """Return hidden and cell state `[batch, hidden]` after one step; gates in the order input, forget, cell, output."""
    hidden, cell = state
    gates = projected + F.linear(hidden, weight, bias)
    i, f, g, o = gates.chunk(4, -1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def gru_cell(projected: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    """Return the hidden state `[batch, hidden]` after one step; gates in the order reset, update, new."""
    (hidden,) = state
    r, z, n = projected.chunk(3, -1)
    hr, hz, hn = F.linear(hidden, weight, bias).chunk(3, -1)
    new = torch.tanh(n + torch.sigmoid(r + hr) * hn)
    return (new + torch.sigmoid(z + hz) * (hidden - new),)


def unroll(cell: Cell, steps: Tensor, state: State, weights: Sequence[Tensor], reverse: bool) -> tuple[Tensor, State]:
    """Run a cell over `steps` `[time, batch, features]`; return the hidden states `[time, batch, hidden]` and the last.

    The products with the input do not depend on each other, so they are one product for all steps.
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
    """Run all layers and directions; return the output and the final states, as the fused kernels do."""
    x = x.transpose(0, 1) if batch_first else x
    directions, each = (2 if bidirectional else 1), (4 if has_biases else 2)
    finals: list[State] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            own = weights[index * each : (index + 1) * each]
            start = tuple(part[index] for part in initial)
            output, final = unroll(cell, x, start, own, reverse=direction == 1)
            outputs.append(output)
            finals.append(final)
        x = torch.cat(outputs, -1) if bidirectional else outputs[0]
    last = tuple(torch.stack(parts) for parts in zip(*finals, strict=True))
    return (x.transpose(0, 1) if batch_first else x, *last)


def keep_weights_apart(module: nn.Module) -> None:
    """Have recurrent layers leave their weights where they lie.

    On a GPU they gather them into one piece of memory of their own, each time that they move or find other weights: out
    of the row that they are to live in, and with a look at addresses, which weights under `vmap` have not.
    """
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            part.flatten_parameters = _leave  # type: ignore[method-assign]


def _leave() -> None:
    """Do nothing."""


class VmapRNN(TorchFunctionMode):
    """Runs every `nn.LSTM` and `nn.GRU` step by step instead of by the fused kernel.

    Packed sequences have shapes that depend on the data and dropout between layers is out of reach inside the
    kernel: both are left to it, and fail under `vmap`.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        cell = {torch.lstm: lstm_cell, torch.gru: gru_cell}.get(func)
        if cell is None or not isinstance(args[3], bool):
            return func(*args, **(kwargs or {}))
        x, initial, weights, has_biases, num_layers, dropout, training, bidirectional, batch_first = args
        if dropout > 0 and training and num_layers > 1:
            return func(*args, **(kwargs or {}))
        # Weights of projections (`proj_size`) come as a fifth tensor a layer.
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
