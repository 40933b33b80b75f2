"""What went wrong in a trial, in one line for people."""

from __future__ import annotations

from dropsearch.core import printable
from dropsearch.core.errors import CAUSE


def root_of_exit(error: BaseException) -> BaseException:
    """Return the KeyboardInterrupt for which Lightning exits, else the error itself."""
    return error.__context__ if isinstance(error.__context__, KeyboardInterrupt) else error


def one_line(error: BaseException) -> str:
    """Return what an error says, on one line, without passwords and not too long."""
    return printable.one_line(" ".join(str(error).split()), CAUSE)
