"""Batched tensors inside `torch.func.vmap` and the stacked values of all rows, and code that vmap cannot run itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from types import FunctionType, SimpleNamespace
from typing import Any

import torch
import torch._C._functorch as _functorch
from torch import Tensor
from torch._C._functorch import (
    _add_batch_dim,
    get_unwrapped,
    is_batchedtensor,
    maybe_get_bdim,
    maybe_get_level,
    peek_interpreter_stack,
)
from torch._functorch.pyfunctorch import (
    VmapInterpreter,
    retrieve_current_functorch_interpreter,
    temporarily_pop_interpreter_stack,
)
from torch.autograd import Function
from torch.distributions import Distribution, dirichlet

functorch: Any = _functorch


@contextmanager
def outside() -> Iterator[None]:
    """Leave the innermost `vmap` level, if there is one, for the duration of the context."""
    with nullcontext() if peek_interpreter_stack() is None else temporarily_pop_interpreter_stack():
        yield


def current_level() -> int:
    """Return the level of the innermost transform of functorch; 0 outside of all."""
    interpreter = peek_interpreter_stack()
    return 0 if interpreter is None else interpreter.level()


def of_rows(tensor: Tensor) -> Tensor | None:
    """Return the stacked values `[rows, ...]` of a batched tensor, or None if the tensor is not batched."""
    return get_unwrapped(tensor).movedim(maybe_get_bdim(tensor), 0) if is_batchedtensor(tensor) else None


_apart: list[int] = []
"""The row that a function is called for by itself, innermost last."""
_told: list[Callable[[int], None]] = []
"""Functions that are called with each such row."""


@contextmanager
def apart(row: int) -> Iterator[None]:
    """Leave the innermost `vmap` level to call a function for one row."""
    for tell in _told:
        tell(row)
    _apart.append(row)
    try:
        with outside():
            yield
    finally:
        _apart.pop()


@contextmanager
def told_apart(tell: Callable[[int], None]) -> Iterator[None]:
    """Call `tell` with each row that a function is called for by itself within the context."""
    _told.append(tell)
    try:
        yield
    finally:
        _told.remove(tell)


def own_part(value: Any) -> Any:
    """Return the values of the row that a function is called for by itself; other values, and all else, unchanged."""
    values = of_rows(value) if _apart and isinstance(value, Tensor) else None
    return value if values is None else values[_apart[-1]]


def needs_gradient(tensor: Tensor) -> bool:
    """Return whether gradients flow through a tensor. Under `vmap`, `requires_grad` does not tell."""
    return base_of(tensor).requires_grad and torch.is_grad_enabled()


def base_of(tensor: Tensor) -> Tensor:
    """Return the tensor below all transforms of functorch."""
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)
    return tensor


def is_of_row(tensor: Tensor) -> bool:
    """Return whether a tensor is batched by `vmap`."""
    return is_batchedtensor(tensor)


def data_of(tensor: Tensor) -> Tensor:
    """Return `tensor.data`: the same memory, whose changes autograd does not count."""
    if not is_batchedtensor(tensor):
        return tensor.detach()
    return _add_batch_dim(get_unwrapped(tensor).data, maybe_get_bdim(tensor), maybe_get_level(tensor))


def require_gradient(tensor: Tensor) -> None:
    """Let gradients flow to a tensor that a step created, as `requires_grad_` does outside of `vmap`."""
    base = base_of(tensor)
    if base.is_leaf:
        with outside():
            base.requires_grad_()


def gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], given: Sequence[Tensor | None], *, keeps: bool, **options: Any
) -> tuple[Tensor | None, ...]:
    """Return the gradients of each row's outputs with respect to its inputs, as `torch.autograd.grad` does.

    What rows share, such as a batch, has another gradient in each row; these are computed one row after the other.

    Args:
        outputs: Tensors of rows.
        inputs: What they are differentiated by.
        given: Gradients of the outputs; empty for outputs of one element.
        keeps: Whether to keep the graph.
        **options: Further options of `torch.autograd.grad`.
    """
    if not any(map(is_batchedtensor, outputs)):
        with outside():
            return torch.autograd.grad(outputs, inputs, given or None, retain_graph=keeps, **options)
    level = level_of(outputs)
    stacked = [_stacked(output) for output in outputs]
    factors: list[Tensor] = [
        torch.ones_like(each) if factor is None else _stacked(factor).expand_as(each)
        for each, factor in zip(stacked, given or [None] * len(outputs), strict=True)
    ]
    whole = [get_unwrapped(each) if is_batchedtensor(each) else each for each in inputs]
    with outside():
        if all(map(is_batchedtensor, inputs)):
            found = torch.autograd.grad(stacked, whole, factors, retain_graph=keeps, **options)
        else:
            columns = []
            for row in range(len(stacked[0])):
                one, by = [each[row] for each in stacked], [each[row] for each in factors]
                columns.append(torch.autograd.grad(one, whole, by, retain_graph=True, **options))
            found = [None if parts[0] is None else torch.stack(parts) for parts in zip(*columns, strict=True)]
            found = [
                each if each is None or not is_batchedtensor(of) else each.sum(0)
                for each, of in zip(found, inputs, strict=True)
            ]
    dims = [maybe_get_bdim(of) if is_batchedtensor(of) else 0 for of in inputs]
    return tuple(
        None if each is None else _add_batch_dim(each, dim, level) for each, dim in zip(found, dims, strict=True)
    )


def _stacked(tensor: Tensor) -> Tensor:
    values = of_rows(tensor)
    return tensor.unsqueeze(0) if values is None else values


def version_of(tensor: Tensor) -> int:
    """Return the number of times that a tensor was changed in place; 0 if that is not counted, as in inference mode."""
    base = base_of(tensor)
    return 0 if base.is_inference() else base._version


def level_of(given: Iterable[Tensor]) -> int:
    """Return the `vmap` level of tensors, at least one of which is batched."""
    return max(maybe_get_level(tensor) for tensor in given if is_batchedtensor(tensor))


def expanded(tensor: Tensor) -> Tensor:
    """Return a batched copy of a tensor; outside `vmap`, the tensor itself."""
    interpreter = peek_interpreter_stack()
    if interpreter is None or is_batchedtensor(tensor):
        return tensor
    current: Any = retrieve_current_functorch_interpreter()
    if not isinstance(current, VmapInterpreter):  # the step itself differentiates by `torch.func`
        return tensor
    rows = current.batch_size()
    with outside():
        copies = tensor.expand(rows, *tensor.shape).clone()
    return in_rows(copies, interpreter.level())


def in_rows(values: Tensor, level: int) -> Tensor:
    """Return stacked values `[rows, ...]` as a batched tensor of this `vmap` level."""
    return _add_batch_dim(values, 0, level)


def of_current_rows(values: Tensor) -> Tensor:
    """Return stacked values `[rows, ...]` as a batched tensor of the innermost `vmap`."""
    if _apart:
        return values[_apart[-1]]
    interpreter = peek_interpreter_stack()
    assert interpreter is not None
    return in_rows(values, interpreter.level())


@contextmanager
def quiet_loops() -> Iterator[None]:
    """Suppress torch's warnings about operations that `vmap` runs in a loop over rows."""
    _quiet.append(True)
    functorch._set_vmap_fallback_warning_enabled(False)
    try:
        yield
    finally:
        _quiet.pop()
        functorch._set_vmap_fallback_warning_enabled(not _quiet)


_quiet: list[bool] = []
"""One item for each open context of `quiet_loops`."""


@contextmanager
def autograd_functions(call: Callable[..., Any]) -> Iterator[None]:
    """Route calls of autograd functions without a batching rule to `call` while the context lasts.

    The code object of `Function.apply` is replaced, because many modules hold that method under another name: ``reverse
    = Reverse.apply``. `call` receives the function's `apply`, the tuple of arguments and the keyword arguments.
    """
    apply = Function.__dict__["apply"].__func__
    code = apply.__code__
    original = FunctionType(code, apply.__globals__, apply.__name__, apply.__defaults__, apply.__closure__)
    _applied.append((call, original))
    apply.__code__ = _Shown.apply.__code__
    try:
        yield
    finally:
        apply.__code__ = code
        _applied.pop()


_applied: list[tuple[Callable[..., Any], FunctionType]] = []


class _Shown:
    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Replacement for `Function.apply`; like the original, its code has the free variable `__class__`."""
        from dropsearch._compat.row_values import applied

        return applied(self, __class__, args, kwargs)


def applied(cls: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Apply an autograd function; without a batching rule, call the handler of `autograd_functions`."""
    call, original = _applied[-1]
    if cls.generate_vmap_rule or cls.vmap is not Function.vmap:
        return original(cls, *args, **kwargs)
    return call(partial(original, cls), args, kwargs)


@contextmanager
def sampled_under_vmap() -> Iterator[None]:
    """Make distributions usable under `vmap`.

    Argument validation is off, since it reads values. Dirichlet and Beta samples are drawn by other code than their
    autograd function, which `vmap` cannot run.
    """
    validates, function = Distribution._validate_args, dirichlet._Dirichlet
    Distribution.set_default_validate_args(False)
    replacement: Any = SimpleNamespace(apply=_sampled)
    dirichlet._Dirichlet = replacement
    try:
        yield
    finally:
        Distribution.set_default_validate_args(validates)
        dirichlet._Dirichlet = function


def _sampled(concentration: Tensor) -> Tensor:
    """Return a sample with its implicit derivative with respect to the concentration, as torch's function has it."""
    fixed = concentration.detach()
    values = torch._sample_dirichlet(fixed)  # pyright: ignore[reportPrivateImportUsage]
    if not needs_gradient(concentration):
        return values
    total = fixed.sum(-1, keepdim=True).expand_as(fixed)
    slope = torch._dirichlet_grad(values, fixed, total)  # pyright: ignore[reportPrivateImportUsage]
    change = (concentration - fixed) * slope  # zero, with a gradient
    return values + change - values * change.sum(-1, keepdim=True)
