"""Calls of functions without a batching rule, separately for each row inside `torch.func.vmap`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dropsearch._compat.row_values import in_rows, level_of, of_rows, outside
from dropsearch.core.batches import combined, mapped, tensors


def each_row(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any] | None:
    """Return the result of a function for each row; None if its arguments are equal for all rows."""
    rows = next((len(values) for values in map(of_rows, tensors([args, kwargs])) if values is not None), None)
    if rows is None:
        return None
    found = []
    for row in range(rows):
        own_args, own_kwargs = mapped((args, dict(kwargs)), lambda tensor, row=row: _of_row(tensor, row))
        with outside():
            found.append(function(*own_args, **own_kwargs))
    return found


def by_row(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call a function separately for each row; return the results as batched tensors.

    Gradients flow through it.
    """
    found = each_row(function, args, kwargs)
    if found is not None:
        return together(found, (args, kwargs))
    with outside():
        return function(*args, **kwargs)


def together(values: list[Any], given: Any) -> Any:
    """Return the values of all rows as batched tensors at the `vmap` level of `given`."""
    level = level_of(tensors(given))
    return combined(values, lambda leaf: in_rows(torch.stack(leaf), level) if isinstance(leaf[0], Tensor) else leaf[0])


def is_of_row(tensor: Tensor) -> bool:
    """Return whether a tensor is batched by `vmap`."""
    return of_rows(tensor) is not None


def _of_row(tensor: Tensor, row: int) -> Tensor:
    values = of_rows(tensor)
    return tensor if values is None else values[row]
