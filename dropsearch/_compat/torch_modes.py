"""Active `TorchFunctionMode`s, through PyTorch's private mode stack."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode_temporarily


def is_active(mode: TorchFunctionMode) -> bool:
    """Return whether a mode sees current calls. A mode does not see calls that it makes while handling one."""
    return any(each is mode for each in _get_current_function_mode_stack())


def without_modes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs with all function modes disabled."""

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
    """Run ``Tensor.backward`` without dispatching it to function modes again."""
    torch.autograd.backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)
