"""Active `TorchFunctionMode`s, through PyTorch's private mode stack."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
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


def as_it_is_written() -> AbstractContextManager[Any]:
    """Return a context in which code that was given to ``torch.compile`` runs as it is written.

    Compiled code shows no calls to function modes, or is compiled anew for each of their states. Nothing was compiled
    where the compiler has not been imported, which takes seconds.
    """
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def backward(
    tensor: Tensor,
    gradient: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Run ``Tensor.backward`` without dispatching it to function modes again."""
    torch.autograd.backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)
