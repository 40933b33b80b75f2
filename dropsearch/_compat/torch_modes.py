"""Which function modes are on, which PyTorch tells by a private name only, and a backward that leaves them on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack


def is_active(mode: TorchFunctionMode) -> bool:
    """Return whether a mode sees the calls that are made now; it does not while it handles one itself."""
    return any(each is mode for each in _get_current_function_mode_stack())


def backward(
    tensor: Tensor,
    gradient: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Do what ``Tensor.backward`` does, without asking the function modes about it again."""
    torch.autograd.backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)
