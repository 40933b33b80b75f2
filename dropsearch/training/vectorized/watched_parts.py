"""The parts of a module whose attributes steps and hooks change: submodules, and plain objects that these hold.

Constructors may give attributes other values in each trial, such as a random projection.
"""

from __future__ import annotations

import argparse
from collections import UserDict, UserList
from collections.abc import Iterator, Mapping, Sized
from enum import Enum
from functools import cache, partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
from lightning import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import Dataset

from dropsearch.core.batches import leaves, same
from dropsearch.core.contents import CONTAINERS, attributes_of, items_of, slots_of
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.user_errors import LIBRARIES, place_of_attribute
from dropsearch.dropout.places import step_names
from dropsearch.training.vectorized.step_traits import Attribute, Path, metric_paths

MOST_OBJECTS = 100
"""Number of plain objects that are watched."""
_MOST_HOLDERS = 20
"""Number of items up to which a container is searched for plain objects."""

_LIGHTNING_OWN = (
    "_trainer", "_fabric", "_current_fx_name", "_metric_attributes", "_fabric_optimizers", "_jit_is_scripting",
)  # fmt: skip
_OF_RECURRENT_LAYERS = ("_flat_weights", "_flat_weight_refs")
_BOOKKEEPING = frozenset({"training", "log", "log_dict", *vars(nn.Module()), *_LIGHTNING_OWN, *_OF_RECURRENT_LAYERS})


def watched_parts(module: nn.Module) -> dict[Path, Any]:
    """Return a module, its submodules and their plain objects by path, without metric objects.

    An object is plain if no library defines its class.
    """
    hidden = tuple(metric_paths(module))
    parts: dict[Path, Any] = {
        (path,): part
        for path, part in module.named_modules()
        if not any(path == metric or path.startswith(f"{metric}.") for metric in hidden)
    }
    waiting, seen, most = list(parts.items()), set[int](), len(parts) + MOST_OBJECTS
    for path, part in waiting:  # grows
        for name, value in attributes(part).items():
            for at, found in _plain_in(value, (*path, name)):
                if id(found) not in seen and len(parts) < most:
                    seen.add(id(found))
                    parts[at] = found
                    waiting.append((at, found))
    return parts


def _plain_in(value: Any, at: Path, depth: int = 2) -> Iterator[tuple[Path, Any]]:
    if is_plain(type(value)):
        yield at, value
    elif isinstance(value, _HOLDERS) and depth and (not isinstance(value, Sized) or len(value) <= _MOST_HOLDERS):
        for index, each in enumerate(_held(value)):
            yield from _plain_in(each, (*at, index), depth - 1)


_HOLDERS = (list, tuple, dict, partial, MethodType)
"""What may hold plain objects: containers, and functions with an object or arguments of their own."""


def _held(holder: Any) -> list[Any]:
    if isinstance(holder, MethodType):
        return [holder.__self__]
    if isinstance(holder, partial):
        return [holder.func, *holder.args, *holder.keywords.values()]
    return items_of(holder)


@cache
def is_plain(kind: type) -> bool:
    """Return whether objects of a class have attributes and no library defines it."""
    if kind in (SimpleNamespace, argparse.Namespace) or issubclass(kind, UserDict | UserList):
        return True
    apart = (nn.Module, LightningDataModule, Dataset, Mapping, tuple, *CONTAINERS, Enum, type, BaseException)
    has_attributes = bool(kind.__dictoffset__) or bool(slots_of(kind))
    return has_attributes and not issubclass(kind, apart) and kind.__module__.partition(".")[0] not in LIBRARIES


def part_at(module: nn.Module, path: Path) -> Any:
    """Return the part of a module at a path of `watched_parts`; None if the module holds no such object."""
    part: Any = module.get_submodule(str(path[0]))
    try:
        for step in path[1:]:
            part = _held(part)[step] if isinstance(step, int) else attributes(part)[step]
    except (LookupError, TypeError):
        return None
    return part


def shown(path: Path, *name: str) -> str:
    """Return a part or an attribute of it as code names it, such as ``self.encoder.schedule.step``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in (*path, *name) if step != "")
    return f"self{''.join(steps)}"


def place_of(module: nn.Module, path: Path, name: str) -> str:
    """Return `` (FILE:LINE)`` of code that uses an attribute of a part, or else its holder; empty without a source."""
    found = place_of_attribute(part_at(module, path), name)
    if found or len(path) == 1:
        return found
    at = max(index for index, step in enumerate(path) if isinstance(step, str))  # the attribute that holds the part
    return place_of(module, path[:at], str(path[at]))


def unsupported(module: nn.Module, attribute: Attribute, message: str) -> UnsupportedError:
    """Return an error with a message that is formatted with the attribute, and the place of its code."""
    return UnsupportedError(f"{message.format(shown(*attribute))}{place_of(module, *attribute)}")


def attributes(part: Any) -> dict[str, Any]:
    """Return the attributes of a part by name, without those that PyTorch and Lightning set."""
    if isinstance(part, nn.Module):
        return {name: value for name, value in vars(part).items() if name not in _BOOKKEEPING}
    return attributes_of(part)


def assign(part: Any, name: str, value: Any) -> None:
    """Set an attribute of a part as it is, without registering modules or buffers."""
    if name in slots_of(type(part)):
        object.__setattr__(part, name, value)
    else:
        vars(part)[name] = value


def remove(part: Any, name: str) -> None:
    """Remove an attribute of a part, if it has it."""
    if name in slots_of(type(part)):
        if hasattr(part, name):
            object.__delattr__(part, name)
    else:
        vars(part).pop(name, None)


def differing_attributes(one: nn.Module, other: nn.Module) -> set[Attribute]:
    """Return the attributes that steps may read and that differ in values or functions between two modules."""
    parts = watched_parts(one)
    names = step_names(frozenset(map(type, parts.values())))
    pairs = ((path, attributes(part), attributes(part_at(other, path))) for path, part in parts.items())
    return {
        (path, name)
        for path, held, others in pairs
        for name in held.keys() & others.keys() & names
        if _differ(held[name], others[name], names)
    }


_VALUES = (
    Tensor, np.ndarray, np.generic, int, float, complex, str, bytes, CodeType, BuiltinFunctionType, type, Enum,
)  # fmt: skip


def _differ(one: Any, other: Any, names: frozenset[str], depth: int = 20) -> bool:
    if one is other or depth <= 0:  # a mapping may hold itself, and functions each other
        return False
    if isinstance(one, Mapping) and isinstance(other, Mapping):  # such as hyperparameters
        read = [key for key in one if key in other and (not isinstance(key, str) or key in names)]
        return any(_differ(one[key], other[key], names, depth - 1) for key in read)
    if type(one) is type(other) and (held := _held_by(one)) is not None:
        return any(_differ(a, b, names, depth - 5) for a, b in zip(held, _held_by(other) or [], strict=False))
    if _are_equal_scalars(one, other):
        return False
    pairs = zip(leaves(one), leaves(other), strict=False)
    return any(type(a) is not type(b) or (isinstance(a, _VALUES) and not same(a, b)) for a, b in pairs)


def _are_equal_scalars(one: Any, other: Any) -> bool:
    """Return whether two lists hold equal numbers and strings: at once, since a list may be large."""
    if type(one) is not type(other) or not isinstance(one, list | tuple):
        return False
    kinds = [*map(type, one)]
    return {*kinds} <= {bool, int, float, str, bytes} and kinds == [*map(type, other)] and one == other


def _held_by(function: Any) -> list[Any] | None:
    """Return the code and the values of a function, without the object of a method; None if it is no such function."""
    if isinstance(function, MethodType):
        return _held_by(function.__func__)
    if isinstance(function, partial):
        return [function.func, *function.args, *function.keywords.values()]
    if isinstance(function, FunctionType):
        cells = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
        return [function.__code__, *(function.__defaults__ or ()), *cells]
    return None
