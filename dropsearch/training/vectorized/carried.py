"""Attributes that a step or a hook sets and that later steps read: each row's own, loaded for a step of all rows."""

from __future__ import annotations

import collections
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dropsearch.core.batches import combined, replaced, same
from dropsearch.dropout.places import read_names
from dropsearch.training.vectorized.by_row import RowsDifferError
from dropsearch.training.vectorized.step_traits import Attribute

_ABSENT = object()
_OUTPUTS = (list, set, collections.deque)
"""Containers to which steps append what a hook reads."""


class _Differing:
    """Placeholder for a number or tensor that differs between rows."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values


class CarriedAttributes:
    """Loads attributes of the rows' modules into the module that runs their steps.

    Args:
        skeleton: The module that runs the steps.
        appended: Attributes that steps change; of these, lists of outputs are not loaded.
    """

    def __init__(self, skeleton: nn.Module, appended: Collection[Attribute]) -> None:
        self._skeleton, self._appended = skeleton, appended
        self._read = read_names(frozenset(type(part) for part in skeleton.modules()))
        self._values: dict[Attribute, Any] = {}

    def of(self, modules: Sequence[nn.Module], names: Collection[Attribute]) -> dict[str, Tensor]:
        """Return the tensors of the attributes `names` of some rows, `[rows, ...]` each.

        Raises:
            RowsDifferError: Values that are no numbers differ between the rows.
        """
        tensors: dict[str, Tensor] = {}
        self._values = {}
        for path, name in names:
            if name not in self._read:
                continue
            values = [vars(module.get_submodule(path)).get(name, _ABSENT) for module in modules]
            if (path, name) in self._appended and isinstance(values[0], _OUTPUTS):
                continue
            for part in _differing_in(self._values.setdefault((path, name), _combined(values))):
                tensors[str(id(part))] = torch.stack([_tensor(each) for each in part.values])
        return tensors

    @contextmanager
    def shown(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Give the skeleton the attributes of the rows; `tensors` are those of `of`, inside of `vmap`."""
        parts = {path: vars(self._skeleton.get_submodule(path)) for path, _ in self._values}
        before = {(path, name): parts[path].get(name, _ABSENT) for path, name in self._values}
        filled = lambda value: tensors[str(id(value))] if isinstance(value, _Differing) else value  # noqa: E731
        try:
            for (path, name), value in self._values.items():
                _set(parts[path], name, replaced(value, filled))
            yield
        finally:
            for (path, name), value in before.items():
                _set(parts[path], name, value)


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def _set(attributes: dict[str, Any], name: str, value: Any) -> None:
    if value is _ABSENT:
        attributes.pop(name, None)
    else:
        attributes[name] = value


def _combined(values: Sequence[Any]) -> Any:
    """Return a value of all rows, with placeholders where numbers or tensors differ."""
    _require_equal([type(value).__name__ for value in values])
    try:
        return combined(values, _of_rows)
    except ValueError as error:  # containers of different lengths or keys
        raise RowsDifferError([repr(value) for value in values]) from error


def _of_rows(leaf: list[Any]) -> Any:
    _require_equal([(type(each).__name__, tuple(each.shape) if isinstance(each, Tensor) else ()) for each in leaf])
    if isinstance(leaf[0], Tensor):
        return _Differing(leaf)
    alike = [next(row for row, other in enumerate(leaf) if _is_alike(each, other)) for each in leaf]
    if isinstance(leaf[0], float) and any(alike):
        return _Differing(leaf)
    _require_equal(alike)
    return leaf[0]


def _is_alike(one: Any, other: Any) -> bool:
    """Return whether two leaves of the same type are the same object, or equal numbers, arrays or strings."""
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return same(one, other) or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


def _require_equal(values: list[Any]) -> None:
    if any(value != values[0] for value in values):
        raise RowsDifferError(values)


def _differing_in(value: Any) -> Iterator[_Differing]:
    found: list[_Differing] = []
    replaced(value, lambda part: found.append(part) or part if isinstance(part, _Differing) else part)
    return iter(found)
