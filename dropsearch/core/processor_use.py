"""Whether a process does anything: the processor time that it and those that it started use."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

LEAST = 0.05
"""Seconds of processor time for each process that are a sign of progress: what only waits uses less in minutes."""


def processor_time(pid: int) -> float | None:
    """Return the seconds of processor time of a process and its ended children; None if it is gone or unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> Iterator[int]:
    """Yield the live processes that a process started, and those that they started."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except OSError:  # the thread has ended
            continue
        for child in children:
            yield child
            yield from descendants(child)


class ProcessorUse:
    """Since when a process and those that it started, such as workers that load data, have done nothing.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self.pid, self.moved = pid, time.monotonic()
        self.is_named = False
        """Whether it was named since it last gave a sign of progress; whoever names it sets this."""
        self._used = 0.0

    def stood(self, heard: float = 0.0) -> float:
        """Return for how many seconds there has been no sign of progress; 0 where nothing is known of the process.

        Args:
            heard: When it was last heard of otherwise.
        """
        last, now, own = max(self.moved, heard), time.monotonic(), processor_time(self.pid)
        times = [each for each in map(processor_time, descendants(self.pid)) if each is not None]
        used = (own or 0.0) + sum(times)
        if own is None or abs(used - self._used) > LEAST * (1 + len(times)):  # it sinks where a descendant is gone
            self._used, last = used, now
        if last > self.moved:
            self.moved, self.is_named = last, False
        return now - self.moved
