"""Functions that are called for each row, and values that differ between rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dropsearch._compat.row_values import apart, in_rows, level_of, of_rows, outside
from dropsearch.core.batches import combined, leaves, mapped, same, tensors

_OPERATORS = (
    "add radd sub rsub mul rmul truediv rtruediv floordiv mod neg abs pow rpow matmul getitem iter len contains bool "
    "float int index lt le gt ge eq ne"
)


def set_operators(placeholder: type, operator: Callable[[str], Callable[..., Any]]) -> None:
    """Give a class that stands for a value its operators; `operator` returns the method of a name."""
    for name in _OPERATORS.split():
        setattr(placeholder, f"__{name}__", operator(f"__{name}__"))
    placeholder.__hash__ = object.__hash__  # type: ignore[method-assign]


def each_row(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any] | None:
    """Return the result of a function for each row; None if its arguments are equal for all rows."""
    rows = next((len(values) for values in map(of_rows, tensors([args, kwargs])) if values is not None), None)
    if rows is None:
        return None
    found = []
    for row in range(rows):
        own = lambda tensor, row=row: tensor if (values := of_rows(tensor)) is None else values[row]  # noqa: E731
        own_args, own_kwargs = mapped((args, dict(kwargs)), own)
        with apart(row):
            found.append(function(*own_args, **own_kwargs))
    return found


def by_row(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call a function separately for each row; return the results as batched tensors, through which gradients flow."""
    found = each_row(function, args, kwargs)
    if found is not None:
        return together(found, (args, kwargs))
    with outside():
        return function(*args, **kwargs)


def together(values: list[Any], given: Any) -> Any:
    """Return the values of all rows as batched tensors at the `vmap` level of `given`.

    Raises:
        RowsDifferError: The values differ in shapes, or in what is no tensor.
    """
    parts = [list(leaves(each)) for each in values]
    alike = [next(row for row, other in enumerate(parts) if _are_alike(each, other)) for each in parts]
    if any(alike):
        raise RowsDifferError(alike)
    level = level_of(tensors(given))
    return combined(values, lambda leaf: in_rows(torch.stack(leaf), level) if isinstance(leaf[0], Tensor) else leaf[0])


def _are_alike(parts: list[Any], others: list[Any]) -> bool:
    """Return whether two rows have tensors of the same shapes, and are equal in what is no tensor."""
    pairs = zip(parts, others, strict=False)
    return len(parts) == len(others) and all(
        a.shape == b.shape if isinstance(a, Tensor) and isinstance(b, Tensor) else same(a, b) for a, b in pairs
    )


class RowsDifferError(Exception):
    """A step branches on a value that differs between its rows; `values` are those of each row."""

    def __init__(self, values: Sequence[Any]) -> None:
        super().__init__("a step branches on a value that differs between trials")
        self.values = list(values)

    def groups(self) -> Iterator[list[int]]:
        """Yield the rows of each value."""
        for value in dict.fromkeys(map(repr, self.values)):
            yield [row for row, other in enumerate(self.values) if repr(other) == value]


class RowArray:
    """Placeholder for the NumPy array of a tensor that differs between rows.

    It can be stored. Code that uses it gets arrays instead: each row takes the step by itself.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _ARRAY_PROTOCOLS:
            raise AttributeError(name)
        raise self._apart()

    def _apart(self) -> RowsDifferError:
        values = of_rows(self.tensor)
        assert values is not None
        return RowsDifferError(range(len(values)))


_ARRAY_PROTOCOLS = ("__array__", "__array_interface__", "__array_struct__", "__array_function__", "__array_ufunc__")


def _used_array(self: RowArray, *_: Any) -> Any:
    raise self._apart()


set_operators(RowArray, lambda _: _used_array)
