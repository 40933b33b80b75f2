"""Calls that `vmap` refuses although they have one meaning for rows that do not depend on each other.

`.data`, copies of modules, results written with `out=`, tensors as bounds of slices, and gradients that a step takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dropsearch._compat.row_values import data_of, gradients, is_of_row, needs_gradient, require_gradient
from dropsearch.core.batches import tensors
from dropsearch.dropout.keyed_draws import can_draw


def _require_gradient(tensor: Tensor, requires_grad: bool = True) -> Tensor:
    if requires_grad:
        require_gradient(tensor)
    return tensor if requires_grad else tensor.detach()


def _gradients(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    **options: Any,
) -> tuple[Tensor | None, ...]:
    options |= {"create_graph": create_graph, "allow_unused": allow_unused}
    keeps = create_graph if retain_graph is None else retain_graph
    return gradients(_listed(outputs), _listed(inputs), _listed(grad_outputs), keeps=keeps, **options)


def _listed(given: Any) -> list[Any]:
    return [] if given is None else [given] if isinstance(given, Tensor) else list(given)


_GAPS: Mapping[Any, Callable[..., Any]] = {
    Tensor.data.__get__: data_of,  # type: ignore[attr-defined]
    Tensor.data.__set__: lambda tensor, values: data_of(tensor).copy_(values),  # type: ignore[attr-defined]
    Tensor.requires_grad.__get__: needs_gradient,  # type: ignore[attr-defined]
    Tensor.requires_grad.__set__: _require_gradient,  # type: ignore[attr-defined]
    Tensor.requires_grad_: _require_gradient,
    Tensor.__deepcopy__: lambda tensor, memo: memo.setdefault(id(tensor), tensor.detach().clone()),
    torch.autograd.grad: _gradients,
}


_ALWAYS_REFUSED = frozenset({Tensor.requires_grad_, torch.autograd.grad})


def in_gap(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a torch operation is one that `closed` calls, if it takes tensors of rows."""
    writes = isinstance(kwargs.get("out"), Tensor) and not can_draw(getattr(func, "__name__", ""))
    return func in _GAPS or writes or any(map(_has_bounds, _index_of(func, args)))


def takes_rows(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether an operation takes tensors of rows, also as bounds of slices, or is refused without them."""
    if func in _ALWAYS_REFUSED:
        return True
    bounds = [_bounds(part) for part in _index_of(func, args) if isinstance(part, slice)]
    return any(map(is_of_row, tensors([list(args), dict(kwargs), bounds])))


def closed(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], number: Callable[[Tensor], int]) -> Any:
    """Call an operation of `in_gap` with tensors of rows.

    Args:
        func: The operation.
        args: Its arguments, as a function mode receives them.
        kwargs: Its keyword arguments.
        number: Returns the number that a tensor of rows holds in all of them.
    """
    if func in _GAPS:
        return _GAPS[func](*args, **kwargs)
    if any(map(_has_bounds, _index_of(func, args))):
        return func(args[0], _with_numbers(args[1], number), *args[2:], **kwargs)
    into = kwargs["out"]
    into.copy_(func(*args, **{name: value for name, value in kwargs.items() if name != "out"}))
    return into


def _index_of(func: Any, args: Sequence[Any]) -> tuple[Any, ...]:
    if func not in (Tensor.__getitem__, Tensor.__setitem__):
        return ()
    return args[1] if isinstance(args[1], tuple) else (args[1],)


def _has_bounds(part: Any) -> bool:
    return isinstance(part, slice) and any(isinstance(bound, Tensor) for bound in _bounds(part))


def _bounds(part: slice) -> list[Any]:
    return [part.start, part.stop, part.step]


def _with_numbers(index: Any, number: Callable[[Tensor], int]) -> Any:
    if isinstance(index, tuple):
        return tuple(_with_numbers(part, number) for part in index)
    if not isinstance(index, slice):
        return index
    return slice(*(number(bound) if isinstance(bound, Tensor) else bound for bound in _bounds(index)))
