"""Calls of plain Python functions, shown to function modes, which see the calls of PyTorch's functions alone.

While a function is shown, its code is exchanged, so that it does not matter which module has imported it. Calls outside
of any mode run as they were written.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, Protocol, runtime_checkable

from torch.overrides import _get_current_function_mode_stack

Call = Callable[..., Any]


@runtime_checkable
class SeesPythonCalls(Protocol):
    """A mode that is told of each call of a shown function."""

    def python_call(self, function: FunctionType, run: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a call is to return; `run` runs it, with the arguments that it is given."""
        ...


class _Shown:
    """A function whose code is exchanged for now."""

    def __init__(self, function: FunctionType) -> None:
        self.function, self.code = function, function.__code__
        self.key, self.watchers = next(_keys), 0
        self.original = FunctionType(self.code, function.__globals__, function.__name__, function.__defaults__)
        self.original.__kwdefaults__ = function.__kwdefaults__

    def exchange(self) -> None:
        code = shown_call.__code__
        consts = tuple(self.key if const == _KEY else const for const in code.co_consts)
        self.function.__code__ = code.replace(co_consts=consts)


_KEY = -12345
_keys = itertools.count()
_shown: dict[int, _Shown] = {}


def shown_call(*args: Any, **kwargs: Any) -> Any:
    """Stand in for a shown function: its code runs in the function's own module."""
    from dropsearch._compat.python_calls import called

    return called(-12345, args, kwargs)


def called(key: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Hand a call to the modes that are on, the innermost first."""
    shown = _shown[key]
    run: Call = shown.original
    for mode in _get_current_function_mode_stack():
        if isinstance(mode, SeesPythonCalls):
            run = _through(mode, shown.function, run)
    return run(*args, **kwargs)


def _through(mode: SeesPythonCalls, function: FunctionType, run: Call) -> Call:
    return lambda *args, **kwargs: mode.python_call(function, run, args, kwargs)


def as_written(function: FunctionType) -> FunctionType:
    """Return a function with its own code, also while it is shown."""
    return next((each.original for each in _shown.values() if each.function is function), function)


def can_be_shown(function: Any) -> bool:
    """Whether calls of a function can be shown: a plain function that keeps nothing of a function around it."""
    return isinstance(function, FunctionType) and not as_written(function).__code__.co_freevars


@contextmanager
def showing(functions: Iterable[FunctionType]) -> Iterator[None]:
    """Show the calls of plain functions while the context lasts."""
    shown = [_show(function) for function in functions]
    try:
        yield
    finally:
        for each in shown:
            each.watchers -= 1
            if not each.watchers:
                each.function.__code__ = each.code
                del _shown[each.key]


def _show(function: FunctionType) -> _Shown:
    shown = next((each for each in _shown.values() if each.function is function), None)
    if shown is None:
        shown = _Shown(function)
        _shown[shown.key] = shown
        shown.exchange()
    shown.watchers += 1
    return shown
