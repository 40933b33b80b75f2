"""State that code keeps where no row has its own: attributes of classes, globals, variables of functions, iterators."""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import CellType, CodeType, FunctionType
from typing import Any

from dropsearch.core.errors import UnsupportedError
from dropsearch.core.user_errors import LIBRARIES, place_of_attribute, place_of_class, place_of_code
from dropsearch.dropout.places import functions_of, read_names
from dropsearch.training.vectorized.attribute_contents import CHANGEABLE, GENERATORS, is_same, snapshot
from dropsearch.training.vectorized.watched_parts import MOST_ITEMS, attributes, shown

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

    New items of a dictionary are not looked at, since they are mostly a cache.

    Raises:
        UnsupportedError: A step reads an iterator.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        kinds = frozenset(type(part) for part in parts.values())
        bases = {base for kind in kinds for base in kind.__mro__ if _is_users(base.__module__)}
        read = read_names(kinds)
        self._variables = [*_of_classes(bases, read), *_of_globals(kinds), *_of_functions(parts)]
        _require_no_iterators(parts, read)

    def snapshot(self) -> list[tuple[Any, Any]]:
        """Return the present values."""
        return [_of(variable.value()) for variable in self._variables]

    def require_same(self, before: list[tuple[Any, Any]], by: str = "a step") -> None:
        """Raise `UnsupportedError` if a value has changed since a snapshot; `by` says in what."""
        for variable, (value, contents) in zip(self._variables, before, strict=True):
            now = variable.value()
            if now is not value or (isinstance(now, CHANGEABLE) and not _is_kept(contents, now)):
                raise UnsupportedError(f"{by} changes {variable.named}, which no row has for itself{variable.place()}")


def _require_no_iterators(parts: Mapping[str, Any], read: frozenset[str]) -> None:
    for path, part in parts.items():
        for name, value in attributes(part).items():
            if name in read and isinstance(value, Iterator):
                place = place_of_attribute(part, name)
                raise UnsupportedError(
                    f"a step reads {shown(path, name)}, an iterator, which goes on with each read{place}"
                )


def _of(value: Any) -> tuple[Any, Any]:
    return value, snapshot(value) if isinstance(value, CHANGEABLE) else None


def _is_kept(before: Any, now: Any) -> bool:
    if isinstance(now, dict):
        return all(dict.get(now, key, _ABSENT) is value for key, value in before.items())
    return is_same(before, now)


def _of_classes(kinds: Iterable[type], read: frozenset[str]) -> Iterator[_Variable]:
    for kind in sorted(kinds, key=lambda each: each.__qualname__):
        for name, value in vars(kind).items():
            if name in read and not name.startswith("__") and isinstance(value, _DATA) and _is_small(value):
                value_of = partial(vars(kind).get, name, _ABSENT)
                yield _Variable(value_of, f"{kind.__name__}.{name}", partial(place_of_class, kind))


@cache
def _of_globals(kinds: frozenset[type]) -> tuple[_Variable, ...]:
    found: dict[tuple[int, str], _Variable] = {}
    for function in sorted(functions_of(kinds), key=lambda each: place_of_code(each.__code__)):
        if function.__name__.startswith("on_"):
            continue
        held = function.__globals__
        for code, name, is_stored in _globals_of(function.__code__):
            is_changeable = isinstance(held.get(name), CHANGEABLE) and _is_small(held[name])
            if (is_stored or is_changeable) and _is_users(str(held.get("__name__"))):
                variable = _Variable(
                    partial(held.get, name, _ABSENT), f"the global {name}", partial(place_of_code, code)
                )
                found.setdefault((id(held), name), variable)
    return tuple(found.values())


def _of_functions(parts: Mapping[str, Any]) -> Iterator[_Variable]:
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


def _globals_of(code: CodeType) -> Iterator[tuple[CodeType, str, bool]]:
    for each in dis.get_instructions(code):
        if each.opname in ("STORE_GLOBAL", "LOAD_GLOBAL"):
            yield code, str(each.argval), each.opname == "STORE_GLOBAL"
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals_of(inner)


def _is_small(value: Any) -> bool:
    return not hasattr(value, "__len__") or isinstance(value, GENERATORS) or len(value) <= MOST_ITEMS


def _is_users(module: str) -> bool:
    return module.partition(".")[0] not in LIBRARIES


_DATA = (bool, int, float, str, tuple, type(None), *CHANGEABLE)
