"""The exceptions that the user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from dropsearch.core.printable import one_line

FAILED, BAD_INPUT, STOPPED = 1, 2, 130
"""The exit statuses of a run that did not end by itself: a `RunError`, an `InputError`, the user's Ctrl-C."""

CAUSE = 300
"""Characters of a cause that is quoted in a message."""


class _OneLineError(Exception):
    """An error whose message is one printable line without passwords, whatever the message was made from."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class InputError(_OneLineError, ValueError):
    """Something that the user gave cannot be used.

    The message is one line that states the rule, the value that broke it, the key or file, and the next
    step. The command line prints it without a traceback and exits with status 2.
    """


class RunError(_OneLineError):
    """The run cannot go on for a reason that lies in the training itself, not in what the user typed.

    The command line prints the message without a traceback and exits with status 1.
    """


def close_match(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean "x"?)`` for the known word nearest to `word`, or an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f' (did you mean "{matches[0]}"?)' if matches else ""


def first_cause(error: BaseException) -> str:
    """Return the first line of the exception that began a chain of them, without passwords.

    An error of the operating system is a cause of its own, whatever was handled when it occurred.
    """
    while not isinstance(error, OSError) and (before := _before(error)) is not None:
        error = before
    lines = str(error).strip().splitlines()
    return one_line(lines[0] if lines else type(error).__name__, CAUSE)


def _before(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


class UnsupportedError(Exception):
    """A module or its data need something that vectorized training does not support; the message names it."""
