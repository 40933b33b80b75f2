"""Attributes that constructors give different values in each trial and steps read, such as a random projection."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor, nn

from dropsearch.core.batches import leaves, same
from dropsearch.dropout.places import step_names
from dropsearch.training.vectorized.step_traits import Attribute
from dropsearch.training.vectorized.watched_parts import attributes, part_at, watched_parts


def differing_attributes(one: nn.Module, other: nn.Module) -> set[Attribute]:
    """Return the attributes that steps may read and that differ in values or functions between two modules."""
    parts = watched_parts(one)
    names = step_names(frozenset(map(type, parts.values())))
    pairs = ((path, attributes(part), attributes(part_at(other, path))) for path, part in parts.items())
    return {
        (path, name)
        for path, held, others in pairs
        for name in held.keys() & others.keys() & names
        if _differ(held[name], others[name], names)
    }


_VALUES = (
    Tensor, np.ndarray, np.generic, int, float, complex, str, bytes, CodeType, BuiltinFunctionType, type, Enum,
)  # fmt: skip


def _differ(one: Any, other: Any, names: frozenset[str], depth: int = 20) -> bool:
    if one is other or depth <= 0:  # a mapping may hold itself, and functions each other
        return False
    if isinstance(one, Mapping) and isinstance(other, Mapping):  # such as hyperparameters
        read = [key for key in one if key in other and (not isinstance(key, str) or key in names)]
        return any(_differ(one[key], other[key], names, depth - 1) for key in read)
    if type(one) is type(other) and (held := _held_by(one)) is not None:
        return any(_differ(a, b, names, depth - 5) for a, b in zip(held, _held_by(other) or [], strict=False))
    if _are_equal_scalars(one, other):
        return False
    pairs = zip(leaves(one), leaves(other), strict=False)
    return any(type(a) is not type(b) or (isinstance(a, _VALUES) and not same(a, b)) for a, b in pairs)


def _are_equal_scalars(one: Any, other: Any) -> bool:
    """Return whether two lists hold equal numbers and strings: at once, since a list may be large."""
    if type(one) is not type(other) or not isinstance(one, list | tuple):
        return False
    kinds = [*map(type, one)]
    return {*kinds} <= {bool, int, float, str, bytes} and kinds == [*map(type, other)] and one == other


def _held_by(function: Any) -> list[Any] | None:
    """Return the code and the values of a function, without the object of a method; None if it is no such function."""
    if isinstance(function, MethodType):
        return _held_by(function.__func__)
    if isinstance(function, partial):
        return [function.func, *function.args, *function.keywords.values()]
    if isinstance(function, FunctionType):
        cells = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
        return [function.__code__, *(function.__defaults__ or ()), *cells]
    return None
