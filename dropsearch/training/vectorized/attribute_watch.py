"""Attributes of a module's parts that a step or a hook changes: found, and put back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from dropsearch._compat.row_values import version_of
from dropsearch.core.contents import (
    CHANGEABLE,
    CONTAINERS,
    GENERATORS,
    HOLDING_TENSORS,
    MOST_COPIED,
    Ends,
    ends,
    fill,
    inside,
    is_same,
    items_of,
    snapshot,
    tensors_in,
)
from dropsearch.training.vectorized.shared_state import SharedState
from dropsearch.training.vectorized.step_traits import Attribute, Path
from dropsearch.training.vectorized.watched_parts import assign, attributes, remove, unsupported, watched_parts


@dataclass(frozen=True)
class OldItem:
    """Placeholder for an item that a container held before the step: that of each row's own container."""

    index: int


class AttributeWatch:
    """A snapshot of a module's attributes, to find and undo the changes of a step; metric objects are left out.

    `parts` are the `watched_parts` of the module, if they are known. In-place changes of tensors are found, not undone.
    """

    def __init__(self, module: nn.Module, parts: Mapping[Path, Any] | None = None) -> None:
        self._module, self._parts = module, watched_parts(module) if parts is None else parts
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

    def change_of(self, attribute: Attribute, value: Any) -> tuple[str, Any]:
        """Return the kind of the `Effect` by which a changed attribute changes in each row, and its argument.

        Raises:
            UnsupportedError: Rows cannot be changed so.
        """
        if value is not self._values[attribute[0]].get(attribute[1]):
            return "attribute", value
        filled, before = self._filled(attribute), self._contents.get(attribute)
        items = items_of(value) if isinstance(value, CONTAINERS) else []
        if self._has_inner_changes(attribute) or (before is not None and filled - set(map(id, items))):
            raise unsupported(self._module, attribute, "a step changes {} by changing a container that it holds")
        if before is None:  # a tensor, or a tuple of some
            return "attribute", value
        if isinstance(before, Ends):
            large = f"a container of more than {MOST_COPIED:,} items"
            raise unsupported(self._module, attribute, f"a step changes {{}} by changing {large}")
        if isinstance(value, GENERATORS):
            raise unsupported(self._module, attribute, "a step changes {} by drawing from it")
        if isinstance(value, np.ndarray):
            return "contents", value.copy()
        if isinstance(value, set):
            return ("added", value - before) if value >= before else ("contents", tuple(value))
        old = items_of(before)
        kept = {id(item): OldItem(index) for index, item in enumerate(old) if id(item) not in filled}
        if isinstance(value, dict):
            return "contents", {key: kept.get(id(item), item) for key, item in zip(value, items, strict=True)}
        is_appended = len(items) >= len(old) and all(a is b and id(b) in kept for a, b in zip(old, items, strict=False))
        return (
            ("added", items[len(old) :]) if is_appended else ("contents", [kept.get(id(each), each) for each in items])
        )

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


class KeptState:
    """What a module, its classes and its files hold before steps that keep no state."""

    def __init__(self, module: nn.Module) -> None:
        self._module, parts = module, watched_parts(module)
        self._watch, self._shared = AttributeWatch(module, parts), SharedState(parts)
        self._before = self._shared.snapshot()

    def require_unchanged(self) -> None:
        """Raise `UnsupportedError` if steps have changed something."""
        for attribute in self._watch.changed():
            raise unsupported(self._module, attribute, "a step changes {}, as the first steps did not")
        self._shared.require_same(self._before)
