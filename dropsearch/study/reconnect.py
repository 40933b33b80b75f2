"""Retries for storages that are temporarily unavailable: a lost connection, a restarting server, a locked database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError  # comes with optuna

from dropsearch.core.errors import RunError, first_cause
from dropsearch.core.printable import tell

PATIENCE, FIRST_PAUSE, LONGEST_PAUSE = 60.0, 0.25, 5.0
"""Seconds after which retrying ends, and the first and longest pause between attempts in seconds."""
REFUSALS = (
    "authentication",
    "password",
    "access denied",
    "does not exist",
    "unknown database",
    "unknown host",
    "translate host name",
    "resolve host",
    "name or service not known",
    "nodename nor servname",
    "no pg_hba.conf entry",
)
"""Parts of server errors that are permanent, so that retrying is useless."""
_T = TypeVar("_T")


def patiently(study_name: str, act: Callable[[], _T]) -> _T:
    """Call `act`, and retry while the database is unavailable. The call must be safe to repeat.

    Raises:
        RunError: The storage failed, or was unavailable for longer than `PATIENCE`.
    """
    with _as_run_error(study_name):
        return retried(f"the storage of study {study_name}", act)


def retried(what: str, act: Callable[[], _T]) -> _T:
    """Call `act`, and retry while the database is unavailable; raise its last error unchanged."""
    pause, until = FIRST_PAUSE, 0.0
    while True:
        try:
            return act()
        except (StorageInternalError, SQLAlchemyError) as error:
            if not _may_come_back(error) or (until and time.monotonic() > until):
                raise
            if not until:
                until = time.monotonic() + PATIENCE
                tell(f"{what} is unavailable ({first_cause(error)}); retrying for {PATIENCE:.0f} s")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


@contextmanager
def _as_run_error(study_name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, StorageInternalError, SQLAlchemyError) as error:
        raise RunError(
            f"the storage of study {study_name} failed ({first_cause(error)}): check that it has space and can be "
            "written, then repeat the command, which continues from the stored trials"
        ) from error


def _may_come_back(error: BaseException | None) -> bool:
    """Return whether any error of a chain means that the database is temporarily unavailable or busy."""
    while error is not None:
        if isinstance(error, DBAPIError) and _is_away(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_away(error: DBAPIError) -> bool:
    message = str(error.orig).lower()
    if "sqlite" in type(error.orig).__module__:
        return "locked" in message or "busy" in message
    if any(refusal in message for refusal in REFUSALS):
        return False
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
