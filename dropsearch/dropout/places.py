"""Places in the code that call a dropout function: what tells the sites of one module apart."""

from __future__ import annotations

import dis
import itertools
import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from torch import nn

from dropsearch._compat.lightning import PREFIXES
from dropsearch.dropout.ops import is_dropout_function

Place = tuple[str, str, int | None, int | None]
"""File, qualified name of the function, line and column of a call."""

OWN: Place = ("torch", "", None, None)
"""The one place of a class of PyTorch's own, whatever branch of its code calls."""
INSERTED: Place = ("inserted", "", None, None)
"""The place of a dropout that `insert_dropout` put behind a module."""

_BETWEEN = (
    "torch.nn.functional",
    "torch.overrides",
    "torch._",
    "torch.functional",
    "dropsearch.dropout.",
    "dropsearch.training.",
)
"""Code that stands between a call and the control, beside other function modes."""
_INSERT = "dropsearch.dropout.tools.insert"


class Places:
    """Numbers the places of one module's class: first those in the code of the class, in order, then any other."""

    def __init__(self, module: nn.Module) -> None:
        self._numbers = {place: number for number, place in enumerate(static_places(type(module)), 1)}

    def number(self, place: Place) -> int:
        """Return the number of a place, counted from 1."""
        return self._numbers.setdefault(place, len(self._numbers) + 1)


class CallReader:
    """Finds the place of the dropout call that runs now."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[CodeType, Place]] = {}

    def place(self, owner: nn.Module) -> Place:
        """Return the place of the innermost call that is neither PyTorch's functional code nor the control's.

        Args:
            owner: The module whose forward runs, as far as modules can be followed.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and _is_between(frame):
            if frame.f_globals.get("__name__") == _INSERT:
                return INSERTED
            frame = frame.f_back
        if frame is not None and _is_torch(frame) and not type(owner).__module__.startswith("torch."):
            hidden = frame.f_locals.get("self")  # a layer that PyTorch does not find, in a plain list
            if isinstance(hidden, nn.Module) and hidden is not owner:
                return ("hidden", str(id(hidden)), None, None)
            while frame is not None and _is_torch(frame):
                frame = frame.f_back
        if frame is None or _is_torch(frame):
            return OWN
        code, at = frame.f_code, frame.f_lasti
        known = self._known.get((id(code), at))
        if known is None:  # the code object is kept, so that its id stays its own
            line, _, column, _ = next(itertools.islice(code.co_positions(), at // 2, None))
            known = self._known[id(code), at] = (code, (code.co_filename, code.co_qualname, line, column))
        return known[1]


def _is_torch(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("torch.")


def _is_between(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__"))
    return name.startswith(_BETWEEN) or frame.f_code.co_name == "__torch_function__"


@cache
def static_places(kind: type) -> tuple[Place, ...]:
    """Return the places in the code of a class and its bases that call a dropout function by its name, in order."""
    if kind.__module__.startswith("torch."):
        return ()
    owners = [each for each in kind.__mro__ if not each.__module__.startswith(("torch.", *PREFIXES))]
    functions = [function for owner in owners for function in _functions(owner)]
    found = (place for function in functions for place in _called(function.__code__, function.__globals__))
    return tuple(dict.fromkeys(found))


def _functions(owner: type) -> list[FunctionType]:
    values = (getattr(value, "__func__", value) for value in vars(owner).values())
    unwrapped = (getattr(value, "__wrapped__", value) for value in values)
    functions = [value for value in unwrapped if isinstance(value, FunctionType)]
    return sorted(functions, key=lambda function: function.__code__.co_firstlineno)


def _called(code: CodeType, names: dict[str, Any]) -> Iterator[Place]:
    """Yield the places in a function, and in the functions inside it, that name a dropout function."""
    held: Any = None
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            held = names.get(instruction.argval)
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(held, ModuleType):
            held = getattr(held, str(instruction.argval), None)
        elif instruction.opname not in ("CACHE", "PUSH_NULL", "PRECALL"):
            held = None
        at = instruction.positions
        if at is not None and _is_function(held):
            yield (code.co_filename, code.co_qualname, at.lineno, at.col_offset)
            held = None
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _called(inner, names)


def _is_function(held: Any) -> bool:
    return isinstance(held, Callable) and is_dropout_function(held)
