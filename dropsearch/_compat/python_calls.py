"""Dispatch of plain Python functions to function modes, which otherwise see only PyTorch functions.

The function's code object is replaced, so that calls are dispatched from every module that imported it. A mode gets
them if it has a method `python_call`, which is an `Answer`. Outside of a mode, calls run unchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch.overrides import _get_current_function_mode_stack

Call = Callable[..., Any]
Answer = Callable[[FunctionType, Call, tuple[Any, ...], dict[str, Any]], Any]
"""Returns the result of a call of a shown function, given the function, a callable that runs it, and the arguments."""


class _Shown:
    """A function whose code is currently replaced."""

    def __init__(self, function: FunctionType) -> None:
        self.function, self.code = function, function.__code__
        self.watchers = 0
        self.answers: list[Answer] = []
        self.original = FunctionType(self.code, function.__globals__, function.__name__, function.__defaults__)
        self.original.__kwdefaults__ = function.__kwdefaults__

    def exchange(self) -> None:
        code = shown_call.__code__
        consts = tuple(self.called if const == _CALLED else const for const in code.co_consts)
        self.function.__code__ = code.replace(co_consts=consts)

    def called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Dispatch a call to the active modes, innermost first."""
        run: Call = self.original
        for answer in self.answers:
            run = _answered(answer, self.function, run)
        for mode in _get_current_function_mode_stack():
            if (answer := getattr(mode, "python_call", None)) is not None:
                run = _answered(answer, self.function, run)
        return run(*args, **kwargs)


_CALLED = -12345
_shown: list[_Shown] = []


def shown_call(*args: Any, **kwargs: Any) -> Any:
    """Replacement code of a shown function; it runs in that function's module and knows no names there."""
    called: Any = -12345
    return called(args, kwargs)


def _answered(answer: Answer, function: FunctionType, run: Call) -> Call:
    return lambda *args, **kwargs: answer(function, run, args, kwargs)


def as_written(function: FunctionType) -> FunctionType:
    """Return a function with its original code, even while it is shown."""
    return next((each.original for each in _shown if each.function is function), function)


def can_be_shown(function: Any) -> bool:
    """Return whether a function can be shown: it must be a plain function without free variables."""
    return isinstance(function, FunctionType) and not as_written(function).__code__.co_freevars


@contextmanager
def showing(functions: Iterable[FunctionType], answer: Answer | None = None) -> Iterator[None]:
    """Dispatch calls of plain functions to the active modes, or to `answer` where no mode takes them."""
    shown = [_show(function) for function in functions]
    for each in shown:
        each.answers += [answer] if answer else []
    try:
        with _scripts_as_written():
            yield
    finally:
        for each in shown:
            if answer:
                each.answers.remove(answer)
            each.watchers -= 1
            if not each.watchers:
                each.function.__code__ = each.code
                _shown.remove(each)


def _show(function: FunctionType) -> _Shown:
    shown = next((each for each in _shown if each.function is function), None)
    if shown is None:
        shown = _Shown(function)
        _shown.append(shown)
        shown.exchange()
    shown.watchers += 1
    return shown


@contextmanager
def _scripts_as_written() -> Iterator[None]:
    """Let `torch.jit.script`, which compiles the code of functions, read them as they are written."""
    script = torch.jit.script

    @functools.wraps(script)
    def scripted(*args: Any, **kwargs: Any) -> Any:
        shown = [*_shown]
        for each in shown:
            each.function.__code__ = each.code
        try:
            return script(*args, **kwargs)
        finally:
            for each in shown:
                each.exchange()

    torch.jit.script = scripted
    try:
        yield
    finally:
        torch.jit.script = script
