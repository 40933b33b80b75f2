"""Progress as whole lines, for log files."""

from __future__ import annotations

import sys
from typing import TextIO

from dropsearch.report.numbers import short
from dropsearch.report.progress.view import Snapshot, View

SECONDS_BETWEEN_LINES = 10.0


class Lines(View):
    """Prints a line at the start of each stage, and every ten seconds."""

    every = SECONDS_BETWEEN_LINES

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._printed: tuple[str, int] = ("", 0)
        self._begun = ""

    def begin(self, now: Snapshot) -> None:
        """Print the name of a stage; not again where it goes on, as each turn of a budget does."""
        if now.stage != self._begun:
            self._print(f"[{now.stage}] {now.work}".rstrip())
        self._begun = now.stage

    def draw(self, now: Snapshot) -> None:
        """Print the progress; before the first such line, print the estimated duration."""
        if estimate := self.new_estimate(now):
            self._print(f"[plan] {estimate}")
        self._print(status(now))
        self._printed = now.stage, now.done

    def note(self, line: str) -> None:
        """Print a line."""
        self._print(line)

    def close(self, now: Snapshot) -> None:
        """Print the last progress of an unfinished run."""
        if now.ending != "done" and self._printed != (now.stage, now.done):
            self._print(status(now))

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def status(now: Snapshot, *, best: bool = True) -> str:
    """Return the progress in one line, with or without the best value so far; of a finished run only that it is."""
    if now.ending == "done":
        return now.ending
    head = " ".join(filter(None, [now.stage, now.state.current if now.trains else ""]))
    counted = f" {now.done}/{now.total} {now.unit}" if now.unit else ""
    return ", ".join([f"{head}{counted}", *details(now, best=best)])


def details(now: Snapshot, *, best: bool = True) -> list[str]:
    """Return best value so far, speed, share of the run and remaining time, as far as known."""
    found = []
    if now.done and now.unit:
        found.append(f"{speed(now.per_minute)}/min")
    if best and now.best is not None and now.trains:
        found.append(f"best {short(now.state.monitor.objective(now.best[0]))} ({now.best[1]})")
    if now.left is None or now.ending:
        return found
    return [*found, f"run {100 * now.share:.0f} %", f"{clock_face(now.left)} left"]


def speed(per_minute: float) -> str:
    """Return a text for units per minute."""
    return f"{per_minute:.0f}" if per_minute >= 10 else f"{per_minute:.1f}"


def clock_face(seconds: float) -> str:
    """Return seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
