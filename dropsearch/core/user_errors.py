"""Messages for errors in user code: the error, its meaning and its location."""

from __future__ import annotations

import os
import re
import sys
import traceback
from asyncio import CancelledError
from types import FrameType

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
"""Patterns of torch's error messages, and their meaning."""


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
    code = getattr(getattr(type(module), name, None), "__code__", None)
    return "" if code is None else f" ({os.path.basename(code.co_filename)}:{code.co_firstlineno})"


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
