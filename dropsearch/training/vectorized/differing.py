"""Attributes that constructors give different values in each trial, such as a random projection, and steps read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from dropsearch.core.batches import leaves, same
from dropsearch.dropout.places import step_names
from dropsearch.training.vectorized.step_traits import Attribute
from dropsearch.training.vectorized.watched_parts import attributes, part_at, watched_parts


def differing_attributes(one: nn.Module, other: nn.Module, *, numbers: bool) -> set[Attribute]:
    """Return the attributes of two modules that differ in tensors or arrays, or with `numbers` also in numbers."""
    parts = watched_parts(one)
    names, kinds = (
        step_names(frozenset(map(type, parts.values()))),
        (Tensor, np.ndarray, *(_NUMBERS if numbers else ())),
    )
    return {
        (path, name)
        for path, part in parts.items()
        for name, value in attributes(part).items()
        if name in names and _differ(value, attributes(part_at(other, path)).get(name), names, kinds)
    }


_NUMBERS = (int, float)


def _differ(one: Any, other: Any, names: frozenset[str], kinds: tuple[type, ...], depth: int = 20) -> bool:
    if one is other or not depth:  # a mapping may hold itself
        return False
    if isinstance(one, Mapping) and isinstance(other, Mapping):  # such as hyperparameters
        read = [key for key in one if key in other and (not isinstance(key, str) or key in names)]
        return any(_differ(one[key], other[key], names, kinds, depth - 1) for key in read)
    pairs = zip(leaves(one), leaves(other), strict=False)
    return any(isinstance(a, kinds) and isinstance(b, kinds) and not _is_equal(a, b) for a, b in pairs)


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    on_devices = isinstance(one, Tensor) and isinstance(other, Tensor) and one.device != other.device
    return same(one, other.to(one.device)) if on_devices else same(one, other)
