"""Function modes for steps under `torch.func.vmap`: unrolled recurrent layers, convolutions by row, mixed precision.

LSTM, GRU and plain RNN run step by step, since `vmap` has no rule for the fused kernels. Parameters, gate order and
results equal those of `nn.LSTM`, `nn.GRU` and `nn.RNN`; the formulas are those of PyTorch's documentation (Hochreiter &
Schmidhuber 1997; Cho et al. 2014 with the reset gate after the product).

`vmap` turns the convolutions of all rows into one grouped convolution. Which is faster, that or one by row, depends on
device, shapes and library, so `planning.throughput` measures both. `torch.autocast` has no effect inside `vmap`, so
tensors are cast explicitly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

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


_SINGLE = {
    torch.lstm_cell: lstm_cell,
    torch.gru_cell: gru_cell,
    torch.rnn_tanh_cell: tanh_cell,
    torch.rnn_relu_cell: relu_cell,
}


def run_cell(
    cell: Cell,
    x: Tensor,
    state: Any,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Any:
    """Run one step of a cell; return its state as the fused kernels do: a tensor, or those of an LSTM."""
    if isinstance(state, Tensor):
        return cell(F.linear(x, w_ih, b_ih), (state,), w_hh, b_hh)[0]
    return cell(F.linear(x, w_ih, b_ih), tuple(state), w_hh, b_hh)


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
    """Runs `nn.LSTM`, `nn.GRU`, `nn.RNN` and their cells step by step instead of with the fused kernels.

    Packed sequences, whose shapes depend on data, are passed to the fused kernel, which fails under `vmap`. Dropout
    between layers is the control's, which hands on one layer at a time.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _SINGLE:
            return run_cell(_SINGLE[func], *args, **(kwargs or {}))
        cell = _CELLS.get(func)
        if cell is None or not isinstance(args[3], bool):
            return func(*args, **(kwargs or {}))
        x, initial, weights, has_biases, num_layers, dropout, training, bidirectional, batch_first = args
        if dropout > 0 and training and num_layers > 1:  # not handled by a control
            return func(*args, **(kwargs or {}))
        # With projections (`proj_size`) each layer has a fifth tensor.
        if len(weights) != num_layers * (2 if bidirectional else 1) * (4 if has_biases else 2):
            return func(*args, **(kwargs or {}))
        states = tuple(initial) if isinstance(initial, list | tuple) else (initial,)
        return run_layers(cell, x, states, weights, has_biases, num_layers, bidirectional, batch_first)


_CONVOLUTIONS = {F.conv1d, F.conv2d, F.conv3d}


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
        if func not in _CONVOLUTIONS:
            return func(*args, **(kwargs or {}))
        return _ByRow.apply(func, *_positional(*args, **(kwargs or {})))


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


PRODUCTS = frozenset(
    [
        F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d,
        F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
        torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm,
        torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm, torch.einsum, F.scaled_dot_product_attention,
    ]
)  # fmt: skip
"""Operations computed in low precision: matrix products and convolutions, which take most of the time."""
EXACT = frozenset(
    [
        F.batch_norm, F.layer_norm, F.group_norm, F.instance_norm, F.local_response_norm, F.normalize,
        F.softmax, torch.softmax, Tensor.softmax, F.log_softmax, torch.log_softmax, Tensor.log_softmax,
        F.cross_entropy, F.nll_loss, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div,
        F.binary_cross_entropy_with_logits, F.cosine_similarity,
        torch.exp, Tensor.exp, torch.log, Tensor.log, torch.logsumexp, Tensor.logsumexp, torch.pow, Tensor.pow,
        torch.sum, Tensor.sum, torch.mean, Tensor.mean, torch.prod, Tensor.prod, torch.cumsum, Tensor.cumsum,
        torch.var, Tensor.var, torch.std, Tensor.std, torch.norm, Tensor.norm,
    ]
)  # fmt: skip
"""Operations computed in float32: norms, losses, exponentials and reductions."""


class MixedPrecision(TorchFunctionMode):
    """Casts the inputs of `PRODUCTS` to bfloat16 and the inputs of `EXACT` to float32.

    Weights and their gradients remain float32. The lists follow those of `torch.autocast`.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options: dict[str, Any] = dict(kwargs or {})
        if func in PRODUCTS:
            args, options = _cast((args, options), torch.float32, torch.bfloat16)
        elif func in EXACT:
            args, options = _cast((args, options), torch.bfloat16, torch.float32)
        return func(*args, **options)


def _cast(values: Any, old: torch.dtype, new: torch.dtype) -> Any:
    return tree_map(lambda v: v.to(new) if isinstance(v, Tensor) and v.dtype == old else v, values)
