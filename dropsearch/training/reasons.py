"""What went wrong in a trial, in one line for people."""

from __future__ import annotations

from pathlib import Path

from dropsearch.core import printable
from dropsearch.core.errors import CAUSE
from dropsearch.core.user_errors import users_line


def root_of_exit(error: BaseException) -> BaseException:
    """Return the KeyboardInterrupt for which Lightning exits, else the error itself."""
    return error.__context__ if isinstance(error.__context__, KeyboardInterrupt) else error


def one_line(error: BaseException) -> str:
    """Return what an error says, on one line, without passwords and not too long."""
    return printable.one_line(" ".join(str(error).split()), CAUSE)


def place_of_method(module: object, name: str) -> str:
    """Return `` (FILE:LINE)`` of a method of a user's class, or an empty string."""
    code = getattr(getattr(type(module), name, None), "__code__", None)
    return "" if code is None else f" ({Path(code.co_filename).name}:{code.co_firstlineno})"


def place_of_error(error: BaseException) -> str:
    """Return `` (FILE:LINE)`` of the user's code that an error came through last, or an empty string."""
    found = users_line(error)
    return "" if found is None else f" ({found[0]})"
