"""State that code keeps where no row has its own: attributes of classes, globals, variables of functions, iterators."""

from __future__ import annotations

import dis
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import CellType, CodeType, FunctionType
from typing import Any

from torch import Tensor

from dropsearch._compat.row_values import version_of
from dropsearch.core.batches import same
from dropsearch.core.contents import CHANGEABLE, GENERATORS, MOST_ITEMS, is_same, snapshot, tensors_in
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.user_errors import LIBRARIES, place_of_attribute, place_of_class, place_of_code
from dropsearch.dropout.places import codes_of, functions_of, step_functions, step_names
from dropsearch.training.vectorized.step_traits import Attribute, Path
from dropsearch.training.vectorized.watched_parts import attributes, is_plain, shown

_ABSENT = object()


@dataclass(frozen=True)
class _Variable:
    """What a step may change: its present value, how a message names it, and where code uses it."""

    value: Callable[[], Any]
    named: str
    place: Callable[[], str]
    """Where it is; to find it takes the whole source of a class."""


class SharedState:
    """Finds changes of what rows do not have for themselves and steps read, by the code of a module's `watched_parts`.

    New items of a dictionary are not looked at, nor the first value of what was None or False: both are mostly a cache.

    Raises:
        UnsupportedError: A step reads an iterator.
    """

    def __init__(self, parts: Mapping[Path, Any]) -> None:
        kinds = frozenset(type(part) for part in parts.values())
        bases = {base for kind in kinds for base in kind.__mro__ if _is_users(base.__module__)}
        read = step_names(kinds)
        of_all = [*_of_classes(bases, read), *_of_globals(kinds)]
        self._variables = [*of_all, *_of_functions(parts), *_of_objects(of_all, kinds)]
        self._filled: set[int] = set()
        """Variables that were empty or False, and have a value."""
        _require_no_iterators(parts, read)

    def snapshot(self) -> list[tuple[Any, Any]]:
        """Return the present values."""
        return [_of(variable.value()) for variable in self._variables]

    def require_same(self, before: list[tuple[Any, Any]], by: str = "a step") -> None:
        """Raise `UnsupportedError` if a value has changed since a snapshot; `by` says in what."""
        for index, (variable, (value, contents)) in enumerate(zip(self._variables, before, strict=True)):
            now = variable.value()
            if _is_kept(value, contents, now):
                continue
            if (value is None or value is False) and index not in self._filled:
                self._filled.add(index)
            else:
                raise UnsupportedError(f"{by} changes {variable.named}, which no row has for itself{variable.place()}")


def _require_no_iterators(parts: Mapping[Path, Any], read: frozenset[str]) -> None:
    for path, part in parts.items():
        for name, value in attributes(part).items():
            if name in read and isinstance(value, Iterator) and not isinstance(value, io.IOBase):  # a file is one
                place = place_of_attribute(part, name)
                raise UnsupportedError(
                    f"a step reads {shown(path, name)}, an iterator, which goes on with each read{place}"
                )


def _of(value: Any) -> tuple[Any, Any]:
    return value, snapshot(value) if isinstance(value, CHANGEABLE) else None


def _is_kept(value: Any, contents: Any, now: Any) -> bool:
    """Return whether a variable has its value still, or an equal one; a dictionary may have new items."""
    if now is not value:
        return same(now, value)
    if isinstance(now, dict):
        return all(dict.get(now, key, _ABSENT) is item for key, item in contents.items())
    return not isinstance(now, CHANGEABLE) or is_same(contents, now)


class FirstValues:
    """The first values of attributes of what all trials share: a cache may be filled, but what is there stays."""

    def __init__(self, parts: Mapping[Path, Any]) -> None:
        own = ((path, name, value) for path, part in parts.items() for name, value in attributes(part).items())
        self._found = {(path, name): _with_versions(value) for path, name, value in own}

    def has(self, attribute: Attribute, value: Any) -> bool:
        """Return whether an attribute has its first value, and each item of a dictionary; new ones are the first."""
        if attribute not in self._found:
            self._found[attribute] = _with_versions(value)
        first, contents, versions = self._found[attribute]
        is_kept = _is_kept(first, contents, value) and all(version_of(each) == version for each, version in versions)
        if isinstance(contents, dict) and is_kept:
            contents.update(dict.items(value))
        return is_kept


def _with_versions(value: Any) -> tuple[Any, Any, list[tuple[Tensor, int]]]:
    return *_of(value), [(tensor, version_of(tensor)) for tensor in tensors_in(value)]


def _of_classes(kinds: Iterable[type], read: frozenset[str]) -> Iterator[_Variable]:
    for kind in sorted(kinds, key=lambda each: each.__qualname__):
        for name, value in vars(kind).items():
            is_data = not name.startswith("__") and isinstance(value, _DATA) and _is_small(value)
            if name in read and (is_data or is_plain(type(value))):
                value_of = partial(vars(kind).get, name, _ABSENT)
                yield _Variable(value_of, f"{kind.__name__}.{name}", partial(place_of_class, kind))


def _of_globals(kinds: frozenset[type]) -> Iterator[_Variable]:
    """Yield globals that steps use and that code may change: those that it sets, containers and plain objects."""
    found, stored = _globals(kinds)
    for (key, name), (held, code) in found.items():
        value = held.get(name)
        is_changeable = is_plain(type(value)) or (isinstance(value, CHANGEABLE) and _is_small(value))
        if (key, name) in stored or is_changeable:
            yield _Variable(partial(held.get, name, _ABSENT), f"the global {name}", partial(place_of_code, code))


def _of_objects(variables: list[_Variable], kinds: frozenset[type]) -> Iterator[_Variable]:
    """Yield the attributes that steps read of plain objects that classes and files hold.

    Those of other installed packages than the module's are left out, since most are their caches and registries.
    """
    packages = {_package(kind) for kind in kinds}
    found = {kind for each in variables if is_plain(kind := type(each.value()))}
    own = {kind for kind in found if _package(kind) in packages or not _is_installed(kind)}
    read = step_names(kinds | own)
    for each in variables:
        held = each.value()
        if type(held) not in own:
            continue
        for name in attributes(held).keys() & read:
            yield _Variable(partial(_attribute, held, name), f"{each.named}.{name}", each.place)


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _is_installed(kind: type) -> bool:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    return not {"site-packages", "dist-packages"}.isdisjoint(file.split(os.sep))


def _attribute(held: Any, name: str) -> Any:
    return attributes(held).get(name, _ABSENT)


@cache
def _globals(
    kinds: frozenset[type],
) -> tuple[dict[tuple[int, str], tuple[dict[str, Any], CodeType]], set[tuple[int, str]]]:
    """Return the globals that steps use, each with its file's names and the code, and those that any code sets."""
    in_steps, stored = step_functions(kinds), set[tuple[int, str]]()
    found: dict[tuple[int, str], tuple[dict[str, Any], CodeType]] = {}
    for function in sorted(functions_of(kinds), key=lambda each: place_of_code(each.__code__)):
        held = function.__globals__
        is_read = function in in_steps and _is_users(str(held.get("__name__")))
        for code in codes_of(function):
            for each in dis.get_instructions(code):
                if each.opname == "STORE_GLOBAL":
                    stored.add((id(held), each.argval))
                if is_read and each.opname in ("STORE_GLOBAL", "LOAD_GLOBAL"):
                    found.setdefault((id(held), each.argval), (held, code))
    return found, stored


def _of_functions(parts: Mapping[Path, Any]) -> Iterator[_Variable]:
    for path, part in parts.items():
        for name, value in attributes(part).items():
            if isinstance(value, FunctionType) and _is_users(str(value.__module__)):
                for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
                    named = f"the variable {variable} of the function {shown(path, name)}"
                    yield _Variable(partial(_content, cell), named, partial(place_of_code, value.__code__))


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _ABSENT


def _is_small(value: Any) -> bool:
    return not hasattr(value, "__len__") or isinstance(value, GENERATORS) or len(value) <= MOST_ITEMS


def _is_users(module: str) -> bool:
    return module.partition(".")[0] not in LIBRARIES


_DATA = (bool, int, float, str, tuple, type(None), *CHANGEABLE)
