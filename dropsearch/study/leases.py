"""Signs of life: what tells the processes of other machines that the trials of this one are being trained."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError  # comes with optuna

from dropsearch.core import process_id

SILENCE = 90.0
"""Seconds without a sign of life after which a process that cannot be looked at counts as dead."""
LONGEST_LOOK = 15.0
"""Seconds of silence that one look counts at most: a process that slept itself has not listened in the meantime."""
FLUSH = 20.0
"""Seconds between signs of life; what was reported of running trials is written with them."""
LATE = 1.5 * FLUSH
"""Seconds without one after which the heartbeat gives it: the training is busy with something long."""
_PREFIX = "lease."
"""Begins the names of the study's attributes that change while processes live."""


def sign() -> dict[str, Any]:
    """Return the attribute of the study that shows that this process lives."""
    return {f"{_PREFIX}{process_id.this_process()}": round(time.time())}


def signs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the last sign of life of each process, from the attributes of the study."""
    return {name.removeprefix(_PREFIX): sign for name, sign in attrs.items() if name.startswith(_PREFIX)}


class Silence:
    """For how long other processes have shown no sign of life, by this process's own clock."""

    def __init__(self) -> None:
        self._signs: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self._looked = time.monotonic()

    def look(self, signs: Mapping[str, Any], owners: Iterable[str]) -> None:
        """Take in the signs that processes have given last, by process.

        Args:
            signs: What changes with each sign.
            owners: The processes that train trials now.
        """
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, LONGEST_LOOK), now
        before, self._seconds = self._seconds, {}
        for owner in owners:
            is_same = owner in before and self._signs.get(owner) == signs.get(owner)
            self._seconds[owner] = before[owner] + passed if is_same else 0.0
        self._signs = {owner: signs.get(owner) for owner in self._seconds}

    def of(self, owner: str) -> float:
        """Return how many seconds a process has been silent."""
        return self._seconds.get(owner, 0.0)


class Leased(Protocol):
    """A study whose trials are held by a lease."""

    def renew_late(self) -> None:
        """Show that this process lives, where the training has not shown it for `LATE` seconds."""
        ...


@contextmanager
def heartbeat(studies: Iterable[Leased]) -> Iterator[None]:
    """Show for studies that this process lives while the context lasts, also during a step that takes minutes."""
    kept, stop = tuple(studies), threading.Event()

    def beat() -> None:
        while not stop.wait(LATE / 4):
            for study in kept:
                # The training meets the same storage, and says what is wrong with it.
                with suppress(OSError, StorageInternalError, SQLAlchemyError):
                    study.renew_late()

    thread = threading.Thread(target=beat, name="dropsearch-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
