"""A storage that is away for a while: the connection is dropped, the server starts again, another writer holds it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError  # comes with optuna

from dropsearch.errors import first_cause
from dropsearch.search.studies import kept

PATIENCE, FIRST_PAUSE, LONGEST_PAUSE = 60.0, 0.25, 5.0
"""For how many seconds a storage is tried again, and the pauses in between."""
_T = TypeVar("_T")


def patiently(study_name: str, act: Callable[[], _T]) -> _T:
    """Do something with a storage, again and again while its database is away; it must do no harm twice.

    Raises:
        RunError: The storage failed, or is away for longer than `PATIENCE`.
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
                        f"the storage of study {study_name} does not answer ({first_cause(error)}): trying again for "
                        f"{PATIENCE:.0f} s",
                        file=sys.stderr,
                    )
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _may_come_back(error: BaseException) -> bool:
    """Say whether the database is away or busy; a full disk or a missing table stays."""
    cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
    if not isinstance(cause, DBAPIError):
        return False
    if "sqlite" in type(cause.orig).__module__:
        return "locked" in str(cause.orig) or "busy" in str(cause.orig)
    return cause.connection_invalidated or isinstance(cause, OperationalError | InterfaceError)
