"""Attributes of a module's parts that a step or a hook changes: found, and put back."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from dropsearch._compat.row_values import version_of
from dropsearch.training.vectorized.attribute_contents import (
    CHANGEABLE,
    GENERATORS,
    HOLDING_TENSORS,
    MOST_COPIED,
    Ends,
    ends,
    fill,
    inside,
    is_same,
    snapshot,
    tensors_in,
)
from dropsearch.training.vectorized.step_traits import Attribute
from dropsearch.training.vectorized.watched_parts import CONTAINERS, assign, attributes, remove, watched_parts


class Replaced(dict[int, Any]):
    """Replaced items of a list by index."""


class Refilled(list[Any]):
    """All items of a container that changed otherwise than by growing."""


class AttributeWatch:
    """A snapshot of a module's attributes, to find and undo the changes of a step; metric objects are left out.

    `parts` are the `watched_parts` of the module, if they are known. In-place changes of tensors are found, not undone.
    """

    def __init__(self, module: nn.Module, parts: Mapping[str, Any] | None = None) -> None:
        self._parts = watched_parts(module) if parts is None else parts
        self._values = {path: attributes(part) for path, part in self._parts.items()}
        self._contents: dict[Attribute, Any] = {}
        self._inner: dict[Attribute, list[tuple[Any, Any]]] = {}
        self._versions: dict[Attribute, list[tuple[Tensor, int]]] = {}
        for path, own in self._values.items():
            copied = snapshot if isinstance(self._parts[path], nn.Module) else ends
            for name, value in own.items():
                if isinstance(value, CHANGEABLE):
                    self._contents[path, name] = copied(value)
                if isinstance(value, HOLDING_TENSORS):
                    self._versions[path, name] = [(tensor, version_of(tensor)) for tensor in tensors_in(value)]
                    self._inner[path, name] = [] if isinstance(value, Tensor) else list(inside(value, copied))

    def changed(self) -> dict[Attribute, Any]:
        """Return overwritten attributes with their current values, and those that changed in place."""
        return {
            (path, name): value
            for path, part in self._parts.items()
            for name, value in attributes(part).items()
            if value is not self._values[path].get(name, self) or self._has_other_contents((path, name), value)
        }

    def filled(self) -> Iterator[Attribute]:
        """Yield the attributes with tensors that were changed in place."""
        return filter(self._filled, self._versions)

    def _filled(self, attribute: Attribute) -> set[int]:
        """Return the identities of an attribute's tensors that were changed in place."""
        return {id(tensor) for tensor, version in self._versions.get(attribute, ()) if version_of(tensor) != version}

    def _has_other_contents(self, attribute: Attribute, value: Any) -> bool:
        """Return whether a value that was not replaced has changed within."""
        if attribute in self._contents and not is_same(self._contents[attribute], value):
            return True
        return attribute in self._inner and bool(self._filled(attribute) or self._has_inner_changes(attribute))

    def _has_inner_changes(self, attribute: Attribute) -> bool:
        return not all(is_same(before, inner) for inner, before in self._inner.get(attribute, ()))

    def grown(self, attribute: Attribute, value: Any) -> Any:
        """Return what changed within: new items of a container, `Replaced` or `Refilled` ones, or a copy of an array.

        None for other values, a string for unsupported changes.
        """
        if value is not self._values[attribute[0]].get(attribute[1]):
            return None
        filled = self._filled(attribute)
        items = list(value.values() if isinstance(value, dict) else value) if isinstance(value, CONTAINERS) else []
        before = self._contents.get(attribute)
        if self._has_inner_changes(attribute) or (before is not None and filled - set(map(id, items))):
            return "by changing a container that it holds"
        if before is None:
            return None
        if isinstance(before, Ends):
            return f"by changing a container of more than {MOST_COPIED:,} items"
        if isinstance(value, np.ndarray):
            return value.copy()
        if isinstance(value, GENERATORS):
            return "by drawing from it"
        if isinstance(value, dict) and list(value)[: len(before)] != list(before):  # removed or moved
            return Refilled(value.items())
        if isinstance(value, set) and before - value:
            return Refilled(value)
        is_kept = lambda old, item: old is item and id(item) not in filled  # noqa: E731
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if key not in before or not is_kept(before[key], item)}
        if isinstance(value, set):
            return value - before
        return _appended(value, list(before), items, is_kept, filled)

    def put_back(self, changed: Iterable[Attribute] | None = None) -> None:
        """Undo all changes; `changed` are the attributes, if they are known."""
        for attribute in self.changed() if changed is None else changed:
            path, name = attribute
            if name not in self._values[path]:
                remove(self._parts[path], name)
                continue
            value = self._values[path][name]
            assign(self._parts[path], name, value)
            if attribute in self._contents:
                fill(value, self._contents[attribute])
            for inner, before in self._inner.get(attribute, ()):
                fill(inner, before)


def _appended(value: Any, before: list[Any], items: list[Any], is_kept: Any, filled: set[int]) -> Any:
    """Return the items that were appended to a list or deque, `Replaced` ones, or all if it is `Refilled`."""
    if len(items) >= len(before) and all(map(is_kept, before, items)):
        return items[len(before) :]
    if isinstance(value, collections.deque) and len(items) == value.maxlen:  # full: it drops its first items
        for count in range(max(1, len(items) - len(before)), len(items) + 1):
            if all(map(is_kept, before[len(before) + count - len(items) :], items[:-count])):
                return items[-count:]
    if len(items) != len(before):
        return Refilled(items)
    replaced = Replaced(
        {at: item for at, (old, item) in enumerate(zip(before, items, strict=True)) if not is_kept(old, item)}
    )
    kept = {id(old) for old in before if isinstance(old, Tensor)} - filled
    is_moved = any(id(item) in kept for item in replaced.values())
    return Refilled(items) if is_moved else replaced
