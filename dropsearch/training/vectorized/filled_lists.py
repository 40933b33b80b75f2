"""Lists to which steps append, as long as no step reads them: each row's own stays outside of the steps."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from dropsearch.training.vectorized.step_traits import Attribute, NotLoadedError

OUTPUTS = (list, collections.deque)
"""Containers to which steps append what a hook reads. Sets are loaded, since Python reads a set past its methods."""


class _Hidden:
    """An item in place of those that the row's own container holds."""


class _Guarded:
    """What the stand-ins of lists and deques have in common: while user code runs, reading them raises."""

    attribute: Attribute
    is_armed = False

    def __copy__(self) -> Any:
        if self.is_armed:
            raise NotLoadedError(self.attribute)
        return next(kind for kind in OUTPUTS if isinstance(self, kind))(self)  # type: ignore[call-overload]


def _guarded(kind: type, name: str) -> Callable[..., Any]:
    original = getattr(kind, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.is_armed:
            raise NotLoadedError(self.attribute)
        return original(self, *args, **kwargs)

    return method


def _read_beside(self: Any, *_: Any) -> Any:
    """Raise where another list is added in front of a stand-in, or NumPy reads it; else do as without this method."""
    if self.is_armed:
        raise NotLoadedError(self.attribute)
    return NotImplemented


_APPENDING = {"append", "extend", "__iadd__"}
_READING = {
    "__contains__", "__delitem__", "__eq__", "__getitem__", "__iter__", "__len__", "__reversed__", "__setitem__",
    "__add__", "__mul__", "__rmul__", "__imul__", "__lt__", "__le__", "__gt__", "__ge__", "__repr__",
}  # fmt: skip
_BESIDE = {"__hash__": None, "__radd__": _read_beside, "__array__": _read_beside}


def _stand_in(kind: type) -> type:
    reading = [name for name in dir(kind) if name in _READING or not name.startswith("_")]
    methods = {
        name: _guarded(kind, name) for name in reading if name not in _APPENDING and callable(getattr(kind, name))
    }
    return type(f"Filled{kind.__name__.title()}", (_Guarded, kind), methods | _BESIDE)


_STAND_INS = {kind: _stand_in(kind) for kind in OUTPUTS}
_NAMES = tuple(kind.__name__ for kind in _STAND_INS.values())


def stand_in(value: Any, attribute: Attribute) -> Any:
    """Return what a step sees of a row's container of `OUTPUTS` to which it only appends."""
    made = _STAND_INS[type(value)]([_Hidden()])
    made.attribute = attribute
    return made


def is_stand_in(value: Any) -> bool:
    """Return whether a value is what `stand_in` returned."""
    return isinstance(value, _Guarded)


@contextmanager
def armed(values: Iterable[Any]) -> Iterator[None]:
    """Let stand-ins raise `NotLoadedError` where code reads them in this context."""
    found = list(values)
    for each in found:
        each.is_armed = True
    try:
        yield
    except TypeError as error:  # of PyTorch and NumPy, which read a list past its methods
        if not any(name in str(error) for name in (_Hidden.__name__, *_NAMES)):
            raise
        raise NotLoadedError(found[0].attribute) from error
    finally:
        for each in found:
            each.is_armed = False
