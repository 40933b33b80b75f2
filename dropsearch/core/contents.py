"""Values that change in place, compared and put back: containers, arrays, and generators of random numbers."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from operator import is_, is_not
from typing import Any

import numpy as np
import torch
from torch import Tensor

CONTAINERS = (list, dict, set, deque)
GENERATORS = (random.Random, np.random.Generator, np.random.RandomState)
CHANGEABLE = (*CONTAINERS, np.ndarray, *GENERATORS)
MOST_ITEMS = 1000
"""Number of items up to which a container is searched for others."""
MOST_NUMBERS = 100_000
"""Size of an array up to which its changes are found."""
MOST_COPIED = 10_000
"""Number of items up to which a container of a plain object is copied."""


def items_of(container: Any) -> list[Any]:
    """Return the items of a container, the values of a dictionary."""
    return list(container.values() if isinstance(container, dict) else container)


@cache
def slots_of(kind: type) -> tuple[str, ...]:
    """Return the attributes that a class and its bases declare in `__slots__`, by the names that Python gives them."""
    found: list[str] = []
    for base in kind.__mro__:
        declared = vars(base).get("__slots__", ())
        names = [name for name in ((declared,) if isinstance(declared, str) else declared) if not name.endswith("__")]
        found += [f"_{base.__name__.lstrip('_')}{name}" if name.startswith("__") else name for name in names]
    return tuple(found)


def attributes_of(value: Any) -> dict[str, Any]:
    """Return the attributes that an object holds: those that its classes declare in `__slots__`, and its `__dict__`."""
    declared = {name: getattr(value, name) for name in slots_of(type(value)) if hasattr(value, name)}
    return {**declared, **getattr(value, "__dict__", {})}


class Ends(list[Any]):
    """What is kept of a large container: its length, first and last item."""


def ends(value: Any) -> Any:
    """Return the `Ends` of a large container, or else its snapshot."""
    if not isinstance(value, (list, dict, deque)) or len(value) <= MOST_COPIED:
        return snapshot(value)
    return _ends(value)


def _ends(value: Any) -> Ends:
    return Ends([len(value), next(iter(value), None), next(reversed(value), None)])


def snapshot(value: Any) -> Any:
    """Return a copy of a container or an array, or the state of a generator."""
    if isinstance(value, np.ndarray):
        return value.copy() if value.size <= MOST_NUMBERS else value
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return value.get_state()
    if isinstance(value, OrderedDict):  # its order is not that of the dictionary beneath
        return {key: dict.get(value, key) for key in OrderedDict.__iter__(value)}
    if isinstance(value, dict):
        return dict.copy(value)  # as it is: classes of users may return other items than they hold
    return set(value) if isinstance(value, set) else list(value)


def is_same(before: Any, now: Any) -> bool:
    """Return whether a value still is what its snapshot says; containers hold the same objects."""
    if isinstance(before, Ends):
        return before[0] == len(now) and all(map(is_, before[1:], _ends(now)[1:]))
    if isinstance(now, np.ndarray):
        return before is now or (before.shape == now.shape and before.tobytes() == now.tobytes())
    if isinstance(now, GENERATORS):
        return repr(before) == repr(snapshot(now))
    if isinstance(now, set):
        return before == now  # a copy may have another order
    same = len(before) == len(now) and all(map(is_, before, now))
    return same and not (isinstance(now, dict) and any(map(is_not, before.values(), snapshot(now).values())))


def fill(value: Any, before: Any) -> None:
    """Put a value back to its snapshot; a large container, of which there is none, stays."""
    if isinstance(before, Ends):
        return
    if isinstance(value, np.ndarray):
        if before is not value:
            value[...] = before
    elif isinstance(value, random.Random):
        value.setstate(before)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = before
    elif isinstance(value, np.random.RandomState):
        value.set_state(before)
    else:
        value.clear()
        extend(value, before)


def extend(container: Any, items: Any) -> None:
    """Add items to a list, set or deque, or set items of a dictionary as they are.

    A Counter's own `update` adds, and an OrderedDict links its keys.
    """
    if isinstance(container, dict):
        kind: Any = OrderedDict if isinstance(container, OrderedDict) else dict
        for key, item in dict(items).items():
            kind.__setitem__(container, key, item)
    else:
        container.extend(items) if hasattr(container, "extend") else container.update(items)


@contextmanager
def tensors_kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Put the numbers of tensors back when the context exits, where they have changed."""
    before = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, kept in before:
                if not torch.equal(tensor, kept):
                    tensor.copy_(kept)


def inside(container: Any, copied: Callable[[Any], Any], depth: int = 3) -> Iterator[tuple[Any, Any]]:
    """Yield what can change in a container that is not large, each with its snapshot, which `copied` returns."""
    if depth and len(container) <= MOST_ITEMS:
        for each in items_of(container):
            if isinstance(each, CHANGEABLE):
                yield each, copied(each)
            if isinstance(each, _HOLDERS):
                yield from inside(each, copied, depth - 1)


def tensors_in(value: Any, depth: int = 3) -> Iterator[Tensor]:
    """Yield the tensors in a value; of containers, those that are not large."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, _HOLDERS) and depth and len(value) <= MOST_ITEMS:
        for each in items_of(value):
            yield from tensors_in(each, depth - 1)


_HOLDERS = (tuple, *CONTAINERS)
HOLDING_TENSORS = (Tensor, *_HOLDERS)
