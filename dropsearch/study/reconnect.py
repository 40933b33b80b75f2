"""Retries for storages that are temporarily unavailable: a lost connection, a restarting server, a locked database."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError  # comes with optuna

from dropsearch.core.errors import first_cause
from dropsearch.study.studies import kept

PATIENCE, FIRST_PAUSE, LONGEST_PAUSE = 60.0, 0.25, 5.0
"""Seconds after which retrying ends, and the first and longest pause between attempts in seconds."""
_T = TypeVar("_T")


def patiently(study_name: str, act: Callable[[], _T]) -> _T:
    """Call `act`, and retry while the database is unavailable. The call must be safe to repeat.

    Raises:
        RunError: The storage failed, or was unavailable for longer than `PATIENCE`.
    """
    pause, until = FIRST_PAUSE, 0.0
    with kept(study_name):
        while True:
            try:
                return act()
            except (StorageInternalError, SQLAlchemyError) as error:
                if not _may_come_back(error) or (until and time.monotonic() > until):
                    raise
                if not until:
                    until = time.monotonic() + PATIENCE
                    print(
                        f"the storage of study {study_name} is unavailable ({first_cause(error)}); retrying for "
                        f"{PATIENCE:.0f} s",
                        file=sys.stderr,
                    )
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _may_come_back(error: BaseException | None) -> bool:
    """Return whether any error of a chain means that the database is temporarily unavailable or busy."""
    while error is not None:
        if isinstance(error, DBAPIError) and _is_away(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_away(error: DBAPIError) -> bool:
    if "sqlite" in type(error.orig).__module__:
        return "locked" in str(error.orig) or "busy" in str(error.orig)
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
