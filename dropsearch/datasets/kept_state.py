"""What an object keeps between calls of its methods, to detect whether a call changes it."""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import operator
from collections import deque
from collections.abc import Iterable, Iterator, Set
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dropsearch.core.contents import GENERATORS, attributes_of, snapshot
from dropsearch.core.user_errors import LIBRARIES
from dropsearch.datasets.data_digest import digest

MOST_PARTS = 50_000
"""Values that are looked at."""
LONGEST = 10_000
"""Entries of a container that are looked at, spread over it."""
MOST_BYTES = 2**26
"""Bytes of tensors and arrays that are read; of what is larger than the rest of them, elements spread over it."""
SAMPLE = 4096
"""Number of these elements, and characters of a text or bytes that are read."""
_PLAIN = (bool, int, float, complex, str, bytes, bytearray, type(None))
_BY_IDENTITY = (Dataset, DataLoader, ModuleType, torch.dtype, torch.device, logging.Filterer, logging.Manager)
"""Values whose content is none of the state: data sets are large, their loaders are looked at elsewhere; loggers."""


def kept_state(owner: Any, methods: Iterable[str]) -> str:
    """Return the sha256 of the values that an object holds, and of the globals that some of its methods name.

    Attributes count with all that they lead to: containers, tensors, random generators, objects, closures and the
    attributes of the user's classes. Its Trainer does not count, nor does the content of data sets.
    """
    found = _State()
    for name, value in vars(owner).items():
        if name not in ("trainer", "_trainer"):
            found.add(name, value)
    for method in methods:
        bound = getattr(owner, method)
        found.add(method, getattr(bound, "__func__", bound))  # the bound method is another object in each access
    for kind in type(owner).__mro__:
        found.add(kind.__qualname__, kind)
    return found.digest()


class _State:
    """The digest of all values that were added, each with what it leads to."""

    def __init__(self) -> None:
        self._found, self._parts, self._bytes = hashlib.sha256(), MOST_PARTS, MOST_BYTES
        self._seen: dict[int, Any] = {}
        """What was visited, which keeps its identity."""

    def digest(self) -> str:
        return self._found.hexdigest()

    def add(self, name: Any, value: Any) -> None:
        waiting: deque[tuple[Any, Any]] = deque([(name, value)])
        while waiting and self._parts > 0:
            path, value = waiting.popleft()
            self._parts -= 1
            self._found.update(f"{path!s}:{type(value).__name__}".encode())
            if isinstance(value, _PLAIN):
                self._found.update(_read(value).encode())
                continue
            self._found.update(str(id(value)).encode())
            if id(value) in self._seen:
                continue
            self._seen[id(value)] = value
            try:
                leaf = self._sampled(value) or _leaf(value)
                self._found.update(leaf.encode())
                waiting.extend(() if leaf else itertools.islice(_parts(value), max(self._parts - len(waiting), 0)))
            except Exception:  # objects of users may raise anything; what does is left out
                continue

    def _sampled(self, value: Any) -> str:
        """Return the content of a tensor or array; else an empty string."""
        if not isinstance(value, Tensor | np.ndarray) or (isinstance(value, np.ndarray) and value.dtype == object):
            return ""
        if value.nbytes > self._bytes:
            flat = value.detach().flatten() if isinstance(value, Tensor) else value.reshape(-1)
            value = flat[:: -(-len(flat) // SAMPLE)]
        self._bytes -= min(value.nbytes, self._bytes)
        return digest(value)


def _read(value: Any) -> str:
    """Return the content of plain data; of a long text, which cannot change in place, its length and its beginning."""
    if isinstance(value, bytearray):
        return f"{len(value)}{bytes(value[:: -(-len(value) // SAMPLE) or 1])!r}"
    return f"{len(value)}{value[:SAMPLE]!r}" if isinstance(value, str | bytes) else repr(value)


def _leaf(value: Any) -> str:
    """Return the content of a value that leads nowhere else; else an empty string."""
    if isinstance(value, _BY_IDENTITY):
        return "object"
    if isinstance(value, torch.Generator):
        return digest(value.get_state())
    if isinstance(value, GENERATORS):
        return repr(snapshot(value))
    if isinstance(value, Iterator) and not hasattr(value, "__dict__"):
        return f"{value!r} {operator.length_hint(value, -1)}"
    return ""


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what a value leads to, by name."""
    if isinstance(value, type):
        own = vars(value) if value.__module__.partition(".")[0] not in LIBRARIES else {}
        yield from ((name, each) for name, each in [*own.items()] if not name.startswith("__") and not _is_code(each))
        return
    if isinstance(value, FunctionType):
        yield "closure", value.__closure__
        yield "attributes", vars(value)
        named = {name: value.__globals__.get(name) for name in value.__code__.co_names}
        yield from ((name, each) for name, each in named.items() if not _is_code(each) and not _is_of_library(value))
    elif isinstance(value, MethodType):
        yield from (("function", value.__func__), ("self", value.__self__))
    elif isinstance(value, functools.partial):
        yield from (("function", value.func), ("arguments", value.args), ("options", value.keywords))
    elif isinstance(value, CellType):
        yield "content", value.cell_contents
    elif isinstance(value, dict | list | tuple | deque | Set | np.ndarray):
        yield "length", len(value)
        each = value.items() if isinstance(value, dict) else enumerate(value)
        yield from [*itertools.islice(each, 0, None, -(-len(value) // LONGEST) or 1)]
    yield from attributes_of(value).items()
    if not hasattr(value, "__dict__") and not isinstance(value, dict | list | tuple | deque | Set | np.ndarray):
        yield "value", repr(value)


def _is_code(value: Any) -> bool:
    return isinstance(value, FunctionType | type | ModuleType | property | classmethod | staticmethod)


def _is_of_library(function: FunctionType) -> bool:
    return str(function.__module__).partition(".")[0] in LIBRARIES
