"""Attributes of a module's parts that a step or a hook changes: found, and put back."""

from __future__ import annotations

import collections
import copy
from collections.abc import Iterator, Mapping
from operator import is_
from typing import Any

from torch import Tensor, nn

from dropsearch._compat.row_values import version_of
from dropsearch.training.vectorized.step_traits import Attribute, metric_paths

CONTAINERS = (list, dict, set, collections.deque)
MOST_ITEMS = 1000
"""Number of items up to which a container is searched for others."""

_LIGHTNING_OWN = (
    "_trainer", "_fabric", "_current_fx_name", "_metric_attributes", "_fabric_optimizers", "_jit_is_scripting",
)  # fmt: skip
_OF_RECURRENT_LAYERS = ("_flat_weights", "_flat_weight_refs")


class Replaced(dict[int, Any]):
    """Replaced items of a list by index."""


def watched_parts(module: nn.Module) -> dict[str, nn.Module]:
    """Return a module and its submodules by path, without metric objects."""
    hidden = tuple(metric_paths(module))
    return {
        path: part
        for path, part in module.named_modules()
        if not any(path == metric or path.startswith(f"{metric}.") for metric in hidden)
    }


class AttributeWatch:
    """A snapshot of a module's attributes, to find and undo the changes of a step; metric objects are left out.

    `parts` are the `watched_parts` of the module, if they are known. In-place changes of tensors are found, not undone.
    """

    def __init__(self, module: nn.Module, parts: Mapping[str, nn.Module] | None = None) -> None:
        self._parts = watched_parts(module) if parts is None else parts
        self._values = {path: _own(part) for path, part in self._parts.items()}
        given = {(path, name): value for path, own in self._values.items() for name, value in own.items()}
        self._contents: dict[Attribute, Any] = {
            attribute: copy.copy(value) for attribute, value in given.items() if isinstance(value, CONTAINERS)
        }
        self._inner = {attribute: list(_inside(value)) for attribute, value in self._contents.items()}
        self._versions = {
            attribute: [(tensor, version_of(tensor)) for tensor in _tensors(value)]
            for attribute, value in given.items()
            if isinstance(value, _WITH_TENSORS)
        }

    def changed(self) -> dict[Attribute, Any]:
        """Return overwritten attributes with their current values, and containers and tensors with other contents."""
        return {
            (path, name): value
            for path, part in self._parts.items()
            for name, value in _own(part).items()
            if value is not self._values[path].get(name, self)
            or ((path, name) in self._versions and self._has_other_contents((path, name), value))
        }

    def _filled(self, attribute: Attribute) -> set[int]:
        """Return the identities of an attribute's tensors that were changed in place."""
        return {id(tensor) for tensor, version in self._versions.get(attribute, ()) if version_of(tensor) != version}

    def _has_other_contents(self, attribute: Attribute, value: Any) -> bool:
        """Return whether a value that was not replaced has changed within."""
        if self._filled(attribute):
            return True
        before = self._contents.get(attribute)
        return before is not None and (not _is_same(before, value) or self._has_inner_changes(attribute))

    def _has_inner_changes(self, attribute: Attribute) -> bool:
        return not all(_is_same(before, inner) for inner, before in self._inner[attribute])

    def grown(self, attribute: Attribute, value: Any) -> Any:
        """Return new items of a container, or `Replaced`; None for other values, a string for unsupported changes."""
        before = self._contents.get(attribute)
        if before is None or value is not self._values[attribute[0]].get(attribute[1]):
            return None
        filled = self._filled(attribute)
        items = [] if isinstance(value, set) else list(value.values() if isinstance(value, dict) else value)
        if self._has_inner_changes(attribute) or filled - set(map(id, items)):
            return "by changing a container that it holds"
        is_kept = lambda old, item: old is item and id(item) not in filled  # noqa: E731
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if key not in before or not is_kept(before[key], item)}
        if isinstance(value, set):
            return value - before
        if len(items) >= len(before) and all(map(is_kept, before, items)):
            return items[len(before) :]
        refused = "otherwise than by appending to it or replacing items"
        if len(items) != len(before):
            return refused
        replaced = Replaced(
            {at: item for at, (old, item) in enumerate(zip(before, items, strict=True)) if not is_kept(old, item)}
        )
        kept = {id(old) for old in before if isinstance(old, Tensor)} - filled
        is_moved = any(id(item) in kept for item in replaced.values())
        return refused if is_moved else replaced

    def put_back(self) -> None:
        """Undo all changes."""
        for attribute in self.changed():
            path, name = attribute
            if name not in self._values[path]:
                del vars(self._parts[path])[name]
                continue
            vars(self._parts[path])[name] = value = self._values[path][name]
            if attribute in self._contents:
                fill(value, self._contents[attribute])
                for inner, before in self._inner[attribute]:
                    fill(inner, before)


def _inside(container: Any, depth: int = 3) -> Iterator[tuple[Any, Any]]:
    """Yield the containers in a container that is not large, each with a copy of it."""
    if depth and len(container) <= MOST_ITEMS:
        for each in container.values() if isinstance(container, dict) else container:
            if isinstance(each, CONTAINERS):
                yield each, copy.copy(each)
                yield from _inside(each, depth - 1)


def _tensors(value: Any, depth: int = 3) -> Iterator[Tensor]:
    """Yield the tensors in a value; of containers, those that are not large."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, _WITH_TENSORS) and depth and len(value) <= MOST_ITEMS:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _tensors(each, depth - 1)


def _is_same(before: Any, now: Any) -> bool:
    if isinstance(now, set):
        return before == now  # a copy may have another order
    same = len(before) == len(now) and all(map(is_, before, now))
    return same and not (isinstance(now, dict) and any(before[key] is not now[key] for key in before))


def fill(container: Any, contents: Any) -> None:
    """Replace the contents of a list, dict, set or deque."""
    container.clear()
    container.extend(contents) if hasattr(container, "extend") else container.update(contents)


def _own(part: nn.Module) -> dict[str, Any]:
    held, bookkeeping = vars(part), _BOOKKEEPING
    return {name: held[name] for name in held if name not in bookkeeping}


_WITH_TENSORS = (Tensor, tuple, *CONTAINERS)
_BOOKKEEPING = frozenset({"training", "log", "log_dict", *vars(nn.Module()), *_LIGHTNING_OWN, *_OF_RECURRENT_LAYERS})
