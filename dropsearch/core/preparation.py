"""What a run does before its progress is shown: a line on a terminal that counts the seconds."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dropsearch.core.repetition import repeating

TICK, LOG_TICK = 1.0, 10.0
"""Seconds between two updates of the line on a terminal, and between two lines of a log."""
_ERASE = "\r\x1b[K"


def redraws(stream: Any) -> bool:
    """Return whether a stream is a terminal on which a line can be written again."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


@contextmanager
def preparing(what: str, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Show what happens: on a terminal with the seconds so far, in a notebook once, in a log every ten seconds.

    What else is printed meanwhile stands on lines of its own. The work is named in at most 60 characters, so that the
    line fits a terminal.
    """
    if not redraws(sys.stderr):
        if "ipykernel" in sys.modules:
            print(f"[prepare] {what}", flush=True)
            yield
            return
        with _in_a_log(what, clock):
            yield
        return
    began = clock()
    sys.stderr.flush()
    _show(f"[prepare] {what}")
    try:
        with own_lines(), repeating(lambda: _show(f"\r[prepare] {what}, {clock() - began:.0f} s"), TICK, "preparation"):
            yield
    finally:
        _show("\n")


class LogLines:
    """Says when a line of a log is due: ten seconds after the last one, also where several short steps follow."""

    def __init__(self) -> None:
        self._printed = self._ended = -math.inf

    def begin(self, now: float) -> None:
        """Begin a step; the first one of a run begins to count."""
        if now - self._ended >= LOG_TICK:
            self._printed = now

    def is_due(self, now: float) -> bool:
        """Return whether a line is due, which then counts as printed."""
        is_due = now - self._printed >= LOG_TICK
        self._printed = now if is_due else self._printed
        return is_due

    def end(self, now: float) -> None:
        """End a step."""
        self._ended = now


_log = LogLines()


@contextmanager
def _in_a_log(what: str, clock: Callable[[], float]) -> Iterator[None]:
    began = clock()
    _log.begin(began)

    def print_if_due() -> None:
        if _log.is_due(now := clock()):
            _show(f"[prepare] {what}, {now - began:.0f} s\n")

    with repeating(print_if_due, TICK, "preparation"):
        yield
    _log.end(clock())


class _OwnLines:
    """A stream that first erases the line which counts the seconds, while there is one.

    A logging handler of a user's module may keep it for good.
    """

    counting = 0
    """Number of contexts in which such a line is shown."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; the counting line comes again behind it."""
        if _OwnLines.counting and text.strip():
            _show(_ERASE)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def own_lines() -> Iterator[None]:
    """Let what is printed on a terminal stand on its own lines while the context lasts."""
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    for name, stream in before.items():
        if stream.isatty():
            setattr(sys, name, _OwnLines(stream))
    _OwnLines.counting += 1
    try:
        yield
    finally:
        _OwnLines.counting -= 1
        for name, stream in before.items():
            if isinstance(getattr(sys, name), _OwnLines):
                setattr(sys, name, stream)


def _show(text: str) -> None:
    """Write to standard error past its buffer, whose lock a process that forks meanwhile would inherit."""
    with suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), text.encode("ascii", "replace"))
