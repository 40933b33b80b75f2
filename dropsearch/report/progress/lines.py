"""Progress as whole lines, which read well in a log file."""

from __future__ import annotations

import sys
from typing import TextIO

from dropsearch.report.progress.progress import Snapshot, in_all

SECONDS_BETWEEN_LINES = 5.0


class Lines:
    """A line for each stage, and one every five seconds between them.

    Args:
        stream: Where they go; standard error by default.
    """

    every = SECONDS_BETWEEN_LINES

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._said: tuple[str, int] = ("", 0)
        self._has_said_time = False

    def begin(self, now: Snapshot) -> None:
        """Print the name of a stage."""
        self._print(f"[{now.stage}]{f' {now.hint}' if now.hint else ''}")

    def draw(self, now: Snapshot) -> None:
        """Print how far the run is; before the first such line how long it takes."""
        if not self._has_said_time and now.is_measured and (said := in_all(now.parts)):
            self._has_said_time = True
            self._print(f"[plan] {said}")
        self._print(status(now))
        self._said = now.stage, now.done

    def note(self, line: str) -> None:
        """Print a line."""
        self._print(line)

    def close(self, now: Snapshot) -> None:
        """Print where a run stopped that did not come to its end."""
        if now.ending != "done" and self._said != (now.stage, now.done):
            self._print(status(now))

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def status(now: Snapshot, *, best: bool = True) -> str:
    """Return how far a run is in one line, with or without the best value so far."""
    head = " ".join(filter(None, [now.stage, now.state.current if now.trains else ""]))
    counted = f" {now.done}/{now.total} {now.unit}" if now.unit else ""
    return ", ".join([f"{head}{counted}", *details(now, best=best)])


def details(now: Snapshot, *, best: bool = True) -> list[str]:
    """Return the best so far, the speed, the share of the run and the time left, as far as they are known."""
    found = []
    if now.done and now.unit:
        found.append(f"{speed(now.per_minute)}/min")
    if best and now.best is not None and now.trains:
        found.append(f"best {now.state.monitor.objective(now.best[0]):.4f} ({now.best[1]})")
    if now.left is None or now.ending:
        return found
    return [*found, f"run {100 * now.share:.0f} %", f"{clock_face(now.left)} left"]


def speed(per_minute: float) -> str:
    """Return a number of units a minute."""
    return f"{per_minute:.0f}" if per_minute >= 10 else f"{per_minute:.1f}"


def clock_face(seconds: float) -> str:
    """Return seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
