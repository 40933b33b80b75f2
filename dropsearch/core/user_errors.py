"""Messages for errors in user code: the error, its meaning and its location."""

from __future__ import annotations

import dis
import inspect
import os
import re
import sys
import traceback
from asyncio import CancelledError
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

from dropsearch.core.errors import CAUSE
from dropsearch.core.printable import one_line

LIBRARIES = sys.stdlib_module_names | {
    "dropsearch", "torch", "lightning", "lightning_fabric", "pytorch_lightning", "lightning_utilities", "torchmetrics",
    "numpy", "hydra", "omegaconf", "optuna",
}  # fmt: skip
"""Packages whose code is no user code."""

USER_ERRORS = (Exception, SystemExit, GeneratorExit, CancelledError)
"""What user code may raise outside of a trial: Ctrl-C alone stops the run."""

LINE = "<line>"
"""File name of code that this package executes."""

_MEANINGS = (
    (
        re.compile(r"expected scalar type|same dtype|Float and Double|Double and Float|should be the same"),
        "the batch and the weights have different types: cast one of them, or set trainer.precision",
    ),
    (
        re.compile(r"resize storage that is not resizable|stack expects each tensor to be equal size"),
        "the examples of a batch have different shapes: use a collate_fn that pads them",
    ),
    (
        re.compile(r"re-initialize CUDA in forked subprocess"),
        "the loader's workers use the GPU: return CPU tensors, which the Trainer moves",
    ),
)


def described(error: BaseException) -> str:
    """Return one line with the type of an error, its message, its location in user code and its meaning."""
    message = message_of(error)
    if isinstance(error, KeyError):
        message = f"there is no key {message}"
    meaning = next((f"; {words}" for pattern, words in _MEANINGS if pattern.search(message)), "")
    found = users_line(error)
    place = "" if found is None else f" ({found[0]} in {found[1]})"
    return f"{type(error).__name__}: {message}{place}{meaning}"


def message_of(error: BaseException) -> str:
    """Return the message of an error on one line, shortened and without passwords."""
    return one_line(" ".join(str(error).split()), CAUSE)


def place_of_error(error: BaseException) -> str:
    """Return `` (FILE:LINE)`` of the innermost user code of an error, or an empty string."""
    found = users_line(error)
    return "" if found is None else f" ({found[0]})"


def place_of_method(module: object, name: str) -> str:
    """Return `` (FILE:LINE)`` of a method of a user's class, or an empty string."""
    method: Any = getattr(type(module), name, None)
    code = getattr(inspect.unwrap(method), "__code__", None) if method is not None else None  # under a decorator
    return "" if code is None or _is_of_library(type(module)) else _place(code.co_filename, code.co_firstlineno)


def place_of_class(kind: type) -> str:
    """Return `` (FILE:LINE)`` of a user's class, or an empty string."""
    try:
        return "" if _is_of_library(kind) else _place(inspect.getfile(kind), inspect.getsourcelines(kind)[1])
    except (OSError, TypeError):  # no source
        return ""


def place_of_code(code: CodeType) -> str:
    """Return `` (FILE:LINE)`` of the first line of a function's code."""
    return _place(code.co_filename, code.co_firstlineno)


def place_of_attribute(part: object, name: str) -> str:
    """Return `` (FILE:LINE)`` where a user's class sets or uses an attribute outside its constructor, or its own."""
    for code in _methods(type(part)):
        for each in dis.get_instructions(code):
            if each.argval == name and each.opname in ("STORE_ATTR", "LOAD_ATTR") and each.positions is not None:
                return _place(code.co_filename, each.positions.lineno or code.co_firstlineno)
    return place_of_class(type(part))


def _methods(kind: type) -> Iterator[CodeType]:
    for base in kind.__mro__:
        for name, function in vars(base).items():
            if not _is_of_library(base) and name != "__init__" and hasattr(function, "__code__"):
                yield function.__code__


def _is_of_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in LIBRARIES


def _place(file: str, line: int) -> str:
    return f" ({os.path.basename(file)}:{line})"


def users_line(error: BaseException) -> tuple[str, str] | None:
    """Return FILE:LINE and the function of the innermost frame outside this package, Python, torch and Lightning.

    The source line is not quoted, since it may contain a password. None if there is no such frame.
    """
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _is_users(frame)]
    if not frames:
        return None
    frame, line = frames[-1]
    return f"{os.path.basename(frame.f_code.co_filename)}:{line}", frame.f_code.co_name


def _is_users(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__")).partition(".")[0]
    return name not in LIBRARIES and frame.f_code.co_filename != LINE
