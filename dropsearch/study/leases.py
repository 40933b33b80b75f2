"""Heartbeats, by which processes on other machines know that trials are still being trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError  # comes with optuna

from dropsearch.core import process_id
from dropsearch.core.repetition import repeating

SILENCE = 90.0
"""Seconds without a heartbeat after which a process on another machine counts as dead."""
LONGEST_LOOK = 15.0
"""Maximum number of seconds of silence that one read adds, since this process itself may have been suspended."""
FLUSH = 20.0
"""Seconds between heartbeats, which are written with the curves of running trials."""
LATE = 1.5 * FLUSH
"""Seconds after which the heartbeat thread writes instead, because training is in a long step."""
_PREFIX = "lease."
"""Prefix of the study's heartbeat attributes."""


def sign() -> dict[str, Any]:
    """Return a new heartbeat of this process as an attribute of the study."""
    return {f"{_PREFIX}{process_id.this_process()}": round(time.time())}


def signs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the last heartbeat of each process from the attributes of the study."""
    return {name.removeprefix(_PREFIX): sign for name, sign in attrs.items() if name.startswith(_PREFIX)}


class Silence:
    """Time without heartbeats of other processes, measured by this process's clock."""

    def __init__(self) -> None:
        self._signs: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self._looked = time.monotonic()

    def look(self, signs: Mapping[str, Any], owners: Iterable[str]) -> None:
        """Update with the last heartbeats by process.

        Args:
            signs: Values that change with each heartbeat.
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


@contextmanager
def heartbeat(renewals: Sequence[Callable[[], None]]) -> Iterator[None]:
    """Write heartbeats while the context lasts, also during steps that take minutes."""

    def beat() -> None:
        for renew in renewals:
            # Training uses the same storage and reports its errors.
            with suppress(OSError, StorageInternalError, SQLAlchemyError):
                renew()

    # A storage that does not answer keeps no run from ending.
    with repeating(beat, LATE / 4, "heartbeat", waits=False):
        yield
