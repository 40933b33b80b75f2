"""Attributes that constructors give different values in each trial, such as a random projection, and steps read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from dropsearch.core.batches import leaves, same
from dropsearch.dropout.places import step_names
from dropsearch.training.vectorized.step_traits import Attribute
from dropsearch.training.vectorized.watched_parts import attributes, part_at, watched_parts


def differing_attributes(one: nn.Module, other: nn.Module) -> set[Attribute]:
    """Return the attributes that steps may read and that differ between two modules in tensors, numbers or strings."""
    parts = watched_parts(one)
    names = step_names(frozenset(map(type, parts.values())))
    return {
        (path, name)
        for path, part in parts.items()
        for name, value in attributes(part).items()
        if name in names and _differ(value, attributes(part_at(other, path)).get(name), names)
    }


_VALUES = (Tensor, np.ndarray, np.generic, int, float, complex, str, bytes, type(None))


def _differ(one: Any, other: Any, names: frozenset[str], depth: int = 20) -> bool:
    if one is other or not depth:  # a mapping may hold itself
        return False
    if isinstance(one, Mapping) and isinstance(other, Mapping):  # such as hyperparameters
        read = [key for key in one if key in other and (not isinstance(key, str) or key in names)]
        return any(_differ(one[key], other[key], names, depth - 1) for key in read)
    pairs = zip(leaves(one), leaves(other), strict=False)
    return any(isinstance(a, _VALUES) and isinstance(b, _VALUES) and not _is_equal(a, b) for a, b in pairs)


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if _is_nan(one) and _is_nan(other):
        return True
    on_devices = isinstance(one, Tensor) and isinstance(other, Tensor) and one.device != other.device
    return same(one, other.to(one.device)) if on_devices else same(one, other)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
