"""Which function modes are on, which PyTorch tells by a private name only, and a backward that leaves them on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode_temporarily


def is_active(mode: TorchFunctionMode) -> bool:
    """Return whether a mode sees the calls that are made now; it does not while it handles one itself."""
    return any(each is mode for each in _get_current_function_mode_stack())


def without_modes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs with no function mode on."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for _ in _get_current_function_mode_stack():
                stack.enter_context(_pop_mode_temporarily())
            return function(*args, **kwargs)

    return run


def backward(
    tensor: Tensor,
    gradient: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Do what ``Tensor.backward`` does, without asking the function modes about it again."""
    torch.autograd.backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)
