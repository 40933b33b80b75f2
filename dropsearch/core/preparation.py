"""What a run does before its progress is shown: a line on a terminal that counts the seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dropsearch.core.repetition import repeating

TICK = 1.0
"""Seconds between two updates of the line."""


@contextmanager
def preparing(what: str, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Show what happens on a terminal, with the seconds so far; in a notebook without them, in a log nothing.

    Args:
        what: The work, in at most 60 characters, so that the line fits a terminal.
        clock: A monotonic clock in seconds.
    """
    if not sys.stderr.isatty():
        if "ipykernel" in sys.modules:
            print(f"[prepare] {what}", flush=True)
        yield
        return
    began = clock()
    sys.stderr.flush()
    _show(f"[prepare] {what}")
    try:
        with repeating(lambda: _show(f"\r[prepare] {what}, {clock() - began:.0f} s"), TICK, "preparation"):
            yield
    finally:
        _show("\n")


def _show(text: str) -> None:
    """Write to standard error past its buffer, whose lock a process that forks meanwhile would inherit."""
    with suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), text.encode("ascii", "replace"))
