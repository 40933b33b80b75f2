"""A background thread that writes in order, so that training never waits for a server."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dropsearch.core.errors import first_cause

PATIENCE = 120.0
"""Seconds to wait for one answer of a server at the end; a model may be large."""
PATIENCE_WITH_THE_DEAD = 10.0
"""The same if the last request failed or the user interrupted the run."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A write operation."""

    label: str
    """Description for the user: `trial dropout/3`."""
    run: Callable[[], object]
    again: bool
    """Whether to retry at the end after a failure."""


class BackgroundWriter:
    """Runs jobs one after another in a separate thread.

    The first failure is reported once, in `problems` and in the log. Failed jobs with `again` are kept for `retry`, so
    they must be idempotent.
    """

    def __init__(self, problems: list[str], hide: Callable[[str], str] = str, service: str = "MLflow") -> None:
        """Initialize the thread; `hide` masks passwords in messages about `service`."""
        self._service = service
        self._problems = problems
        self._hide = hide
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._failed: list[Job] = []
        self._current: Job | None = None
        self._failing = False
        self._warned = False
        self._given_up = False
        self._answered = 0.0
        """Time of the last finished job or the start of waiting, by `time.monotonic`."""
        self._thread = threading.Thread(target=self._work, name="dropsearch-tracking", daemon=True)
        self._thread.start()

    def put(self, label: str, run: Callable[[], object], *, again: bool = False) -> None:
        """Queue a job and return immediately."""
        self._jobs.put(Job(label, run, again))

    def retry(self) -> None:
        """Queue a second attempt at failed jobs; it stops at the first failure."""
        self.put("what failed before", self._retry)

    def wait(self, hurry: bool = False) -> bool:
        """Wait until all jobs are written, as long as the server responds; return whether they are."""
        done = threading.Event()
        self.put("nothing", done.set)
        self._answered = time.monotonic()
        while not done.wait(0.02):
            if time.monotonic() - self._answered > self._patience(hurry) or not self._thread.is_alive():
                return False
        return True

    def _patience(self, hurry: bool) -> float:
        return PATIENCE_WITH_THE_DEAD if hurry or self._failing else PATIENCE

    def close(self, hurry: bool = False) -> list[str]:
        """Finish, or give up if the server does not respond; return the labels of lost jobs with `again`."""
        self._given_up = not self.wait(hurry)
        current = self._current
        if self._given_up and current is not None:
            self._warn(current.label, TimeoutError(f"no answer in {self._patience(hurry):.0f} seconds"))
        waiting = [current, *iter(self._next_waiting, None)] if self._given_up else []
        self._jobs.put(None)
        if not self._given_up:
            self._thread.join()
        return [job.label for job in (*self._failed, *waiting) if job is not None and job.again]

    def forget(self) -> None:
        """Drop all queued jobs."""
        while self._next_waiting() is not None:
            pass

    def _next_waiting(self) -> Job | None:
        try:
            return self._jobs.get_nowait()
        except queue.Empty:
            return None

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._given_up:
            self._current = job
            if not self._attempt(job) and job.again:
                self._failed.append(job)
            self._current = None
            if not self._failing:
                self._answered = time.monotonic()

    def _attempt(self, job: Job) -> bool:
        try:
            job.run()
        except Exception as error:  # tracking errors of any kind must not stop training
            self._failing = True
            self._warn(job.label, error)
            return False
        self._failing = False
        return True

    def _retry(self) -> None:
        while self._failed:
            self._failed[0].run()
            self._failed.pop(0)

    def _warn(self, label: str, error: Exception) -> None:
        first = self._hide(first_cause(error))
        if self._warned:
            log.debug("%s did not take %s: %s", self._service, label, first)
            return
        self._warned = True
        self._problems.append(f"{self._service} did not take {label}: {first[:200]}; the study goes on without it")
        log.warning(self._problems[-1])
