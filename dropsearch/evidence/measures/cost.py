"""What a pass through a network costs, counted and not timed: it is the same on any machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def operations(module: nn.Module, inputs: Sequence[Tensor]) -> float:
    """Return the floating-point operations of one pass: those of products and convolutions, the bulk of them.

    PyTorch's counter does not see into recurrent layers; of these each weight counts twice a step.

    Args:
        module: The network.
        inputs: What its ``forward`` takes, each [batch, ...].
    """
    recurrent: list[float] = []

    def count(layer: nn.Module, _: Any, output: Any) -> None:
        states = output[0]
        steps = states.data.shape[0] if isinstance(states, nn.utils.rnn.PackedSequence) else states[..., 0].numel()
        recurrent.append(2.0 * steps * sum(weight.numel() for weight in layer.parameters()))

    with ExitStack() as context, torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.RNNBase):
                context.callback(part.register_forward_hook(count).remove)
        counter = context.enter_context(FlopCounterMode(display=False))
        module(*inputs)
    return float(counter.get_total_flops()) + sum(recurrent)
