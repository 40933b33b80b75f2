"""The values of all rows of a tensor inside of `torch.func.vmap`, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch._C._functorch import (
    _add_batch_dim,
    _set_vmap_fallback_warning_enabled,
    get_unwrapped,
    is_batchedtensor,
    maybe_get_bdim,
    maybe_get_level,
    peek_interpreter_stack,
)
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter, temporarily_pop_interpreter_stack
from torch.autograd import Function

outside = temporarily_pop_interpreter_stack
"""Context in which code runs outside of the `vmap` that it is in."""


def of_rows(tensor: Tensor) -> Tensor | None:
    """Return the values of a tensor, `[rows, ...]`; None if it is the same for all rows, or outside of `vmap`."""
    return get_unwrapped(tensor).movedim(maybe_get_bdim(tensor), 0) if is_batchedtensor(tensor) else None


def level_of(given: Iterable[Tensor]) -> int:
    """Return the level of the `vmap` that tensors are in; some of them differ between rows."""
    return max(maybe_get_level(tensor) for tensor in given if is_batchedtensor(tensor))


def expanded(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor for each row, as a tensor of one row; outside of `vmap` the tensor itself."""
    interpreter = peek_interpreter_stack()
    if interpreter is None or is_batchedtensor(tensor):
        return tensor
    rows = retrieve_current_functorch_interpreter().batch_size()
    with outside():
        copies = tensor.expand(rows, *tensor.shape).clone()
    return in_rows(copies, interpreter.level())


def in_rows(values: Tensor, level: int) -> Tensor:
    """Return values `[rows, ...]` as a tensor of one row, inside of the `vmap` of this level."""
    return _add_batch_dim(values, 0, level)


@contextmanager
def quiet_loops() -> Iterator[None]:
    """Keep back the warnings of torch that an operation runs row by row under `vmap`, while the context lasts."""
    _set_vmap_fallback_warning_enabled(False)
    try:
        yield
    finally:
        _set_vmap_fallback_warning_enabled(True)


@contextmanager
def autograd_functions(call: Callable[..., Any]) -> Iterator[None]:
    """Hand the calls of autograd functions that have no batching rule to a function, while the context lasts.

    Args:
        call: Gets the function's `apply`, its arguments as a tuple, and no keyword arguments as a dict.
    """
    original = Function.__dict__["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        run = original.__get__(None, cls)
        has_rule = cls.generate_vmap_rule or cls.vmap is not Function.vmap
        return run(*args, **kwargs) if has_rule else call(run, args, kwargs)

    Function.apply = classmethod(apply)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Function.apply = original
