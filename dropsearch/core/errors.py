"""Exceptions with messages for the user, and the check that optional libraries are installed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from dropsearch.core.printable import one_line

FAILED, BAD_INPUT, STOPPED = 1, 2, 130
"""Exit statuses after a `RunError`, an `InputError` and Ctrl-C."""

CAUSE = 300
"""Maximum number of characters of a cause quoted in a message."""


class _OneLineError(Exception):
    """An error whose message is made one printable line without passwords."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class InputError(_OneLineError, ValueError):
    """Invalid input from the user.

    The message is one line that states the rule, the value that broke it, the key or file, and the next step. The
    command line prints it without a traceback and exits with status 2.
    """


class RunError(_OneLineError):
    """The run cannot continue for a reason other than invalid input.

    The command line prints the message without a traceback and exits with status 1.
    """


def close_match(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean "x"?)`` for the known word nearest to `word`, or an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f' (did you mean "{matches[0]}"?)' if matches else ""


def first_cause(error: BaseException) -> str:
    """Return the first line of the exception at the start of a chain, without passwords.

    An OSError starts its own chain: the exception handled when it occurred does not count.
    """
    while not isinstance(error, OSError) and (before := _before(error)) is not None:
        error = before
    lines = str(error).strip().splitlines()
    return one_line(lines[0] if lines else type(error).__name__, CAUSE)


def _before(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


class UnsupportedError(Exception):
    """A module or its data needs something that vectorized training does not support; the message names it."""


EXTRAS: Mapping[str, tuple[str, ...]] = {
    "search": ("optuna", "hydra", "omegaconf", "scipy", "cloudpickle"),
    "report": ("matplotlib", "jinja2", "pandas"),
    "data": ("sklearn", "PIL", "scipy"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard",),
    "postgres": ("psycopg",),
    "ray": ("ray",),
}
"""Modules that each extra installs in addition to torch, lightning and numpy, which are required."""

APART = ("postgres", "ray", "wandb", "tensorboard")
"""Extras that `dropsearch[all]` leaves out."""
EVERYTHING = '"dropsearch[all]" for everything'


class MissingExtraError(InputError, ImportError):
    """A library that this part of dropsearch needs is not installed."""


def require(purpose: str, *extras: str) -> None:
    """Raise `MissingExtraError` unless the libraries of some extras, which `purpose` needs, are installed."""
    for extra in extras:
        missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
        if missing:
            raise MissingExtraError(
                f"{purpose} needs {', '.join(missing)} (not installed): pip install "
                f'"dropsearch[{extra}]"{", or " + EVERYTHING if extra not in APART else ""}'
            )
