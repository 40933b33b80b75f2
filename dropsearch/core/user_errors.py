"""Messages for errors in user code: the error, its meaning and its location."""

from __future__ import annotations

import os
import re
import sys
import traceback
from asyncio import CancelledError
from collections.abc import Iterator
from types import FrameType

from dropsearch.core.errors import CAUSE
from dropsearch.core.printable import one_line

_LIBRARIES = sys.stdlib_module_names | {
    "dropsearch", "torch", "lightning", "lightning_fabric", "pytorch_lightning", "lightning_utilities", "torchmetrics",
    "numpy", "hydra", "omegaconf", "optuna",
}  # fmt: skip

USER_ERRORS = (Exception, SystemExit, GeneratorExit, CancelledError)
"""What user code may raise outside of a trial: Ctrl-C alone stops the run."""

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
    message = one_line(" ".join(str(error).split()), CAUSE)
    if isinstance(error, KeyError):
        message = f"there is no key {message}"
    meaning = next((f"; {words}" for pattern, words in _MEANINGS if pattern.search(message)), "")
    return f"{type(error).__name__}: {message}{place_of(error)}{meaning}"


def place_of(error: BaseException) -> str:
    """Return the location of an error in user code, in brackets: `` (mynet.py:34 in training_step)``.

    This is the innermost frame outside this package, Python, torch and Lightning; empty if there is none. The source
    line is not quoted, since it may contain a password.
    """
    found = users_line(error)
    return "" if found is None else f" ({found[0]} in {found[1]})"


def users_line(error: BaseException) -> tuple[str, str] | None:
    """Return FILE:LINE and the function of the innermost frame in user code, or None."""
    frame, line = next(iter(reversed(list(_users(error)))), (None, 0))
    if frame is None:
        return None
    return f"{os.path.basename(frame.f_code.co_filename)}:{line}", frame.f_code.co_name


def _users(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__")).partition(".")[0]
        if name not in _LIBRARIES:
            yield frame, line
