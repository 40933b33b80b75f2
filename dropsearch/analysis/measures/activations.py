"""Reading and replacing the activations of hidden layers during a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dropsearch.analysis.measures.protocol import NotMeasuredError, TrainedModel

ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.Softsign,
    nn.Tanh,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.Hardsigmoid,
    nn.Hardswish,
)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (*_CONVOLUTIONS, nn.Linear, nn.Bilinear)

MOST = 8192
"""Maximum number of observations of a layer; a seeded sample if there are more."""

Heard = Callable[[int, Tensor, int], Tensor | None]
"""Receives a layer's number in the order of the pass, its activations and the axis of its units; may return replaced
activations."""


@dataclass(frozen=True)
class Hidden:
    """The activations of a hidden layer in one pass."""

    number: int
    """Position in the order of the pass."""
    values: Tensor
    """Activations [observations, units]."""


def hidden_layers(trained: TrainedModel, inputs: Sequence[Tensor]) -> tuple[list[Hidden], Tensor]:
    """Return the hidden layers of one pass over `inputs`, and its logits.

    A hidden layer is the output of an activation module, or the states of a recurrent module. Its units are features.
    After a convolution, units are channels and every position of every example is an observation; so is every real
    step of a sequence. (The mean of a feature map over positions is unsuitable: it is nonzero if the map is active
    anywhere.)

    Raises:
        NotMeasuredError: There is no hidden layer.
    """
    met: list[Tensor] = []
    found: list[Hidden] = []

    def read(number: int, activations: Tensor, axis: int) -> None:
        met.append(activations)
        rows = activations.movedim(axis, -1)[_real(inputs, activations, axis)]
        found.append(Hidden(number, _at_most(rows.reshape(-1, rows.shape[-1]), trained.settings.seed)))

    with torch.no_grad(), hearing(trained.module, read):
        logits = trained.predict(*inputs)
    # If an activation module comes last, its output is the network's output and not hidden.
    hidden = [layer for layer, tensor in zip(found, met, strict=True) if tensor.data_ptr() != logits.data_ptr()]
    if not hidden:
        raise NotMeasuredError("it needs hidden layers with activation modules such as nn.ReLU, and there are none")
    return hidden, logits


def _real(inputs: Sequence[Tensor], activations: Tensor, axis: int) -> Any:
    """Return which positions of `[examples, steps, units]` are not padding; all without lengths."""
    x, *rest = inputs
    steps = activations.shape[1] if activations.dim() == 3 and axis == -1 else 0
    lengths = next((part for part in rest if part.dim() == 1 and not part.is_floating_point()), None)
    if lengths is None or x.dim() != 3 or x.shape[:2] != activations.shape[:2]:
        return ...
    return torch.arange(steps, device=x.device) < lengths.clamp(min=1).unsqueeze(1)


def _at_most(rows: Tensor, seed: int) -> Tensor:
    if len(rows) <= MOST:
        return rows.clone()
    drawn = torch.randint(len(rows), (MOST,), generator=torch.Generator().manual_seed(seed))
    return rows[drawn.to(rows.device)]


@contextmanager
def hearing(module: nn.Module, heard: Heard) -> Iterator[None]:
    """Call `heard` for each hidden layer of one pass in the context; hooks are removed afterwards."""
    count, behind_convolution = 0, False

    def layer(of: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal behind_convolution
        behind_convolution = isinstance(of, _CONVOLUTIONS)

    def hidden(of: nn.Module, inputs: Any, output: Any) -> Any:
        nonlocal count
        is_recurrent = isinstance(of, nn.RNNBase)
        states = output[0] if is_recurrent else output
        if not isinstance(states, Tensor) or states.dim() < (3 if is_recurrent else 2):
            return None  # packed sequences or unbatched examples
        axis = 1 if behind_convolution and not is_recurrent else -1
        changed = heard(count, states, axis)
        count += 1
        if changed is None:
            return None
        return (changed, _changed_states(of, output[1], changed)) if is_recurrent else changed

    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, (*ACTIVATIONS, nn.RNNBase)):
                stack.callback(part.register_forward_hook(hidden).remove)
            elif isinstance(part, _LAYERS):
                stack.callback(part.register_forward_hook(layer).remove)
        yield


def _changed_states(of: nn.RNNBase, state: Any, changed: Tensor) -> Any:
    """Return the final states of a recurrent module, with the top layer's from the changed outputs."""
    steps = changed.transpose(0, 1) if of.batch_first else changed
    last, *cell = state if isinstance(state, tuple) else (state,)
    size = steps.shape[2] // (2 if of.bidirectional else 1)
    top = [steps[-1, :, :size], *([steps[0, :, size:]] if of.bidirectional else [])]
    hidden = torch.cat([last[: -len(top)], torch.stack(top)])
    return (hidden, *cell) if isinstance(state, tuple) else hidden
