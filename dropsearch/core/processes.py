"""Processes: their identity, whether they are alive, how they crashed, and how much they use the processor cores."""

from __future__ import annotations

import faulthandler
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

PROC = Path("/proc")
GONE = ""
"""The start time of a process that does not exist."""


def this_process() -> str:
    """Return `host:pid:start time` of this process, which is unique even if the pid is reused."""
    return _name(os.getpid())


@cache  # keyed by pid, since a forked process inherits the cache of its parent
def _name(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:{started(pid)}"


def is_here(owner: str) -> bool:
    """Return whether a process, given by its identifier, belongs to this host."""
    return owner.partition(":")[0] == socket.gethostname()


def is_dead(owner: str) -> bool:
    """Return whether a process, given by its identifier, has certainly ended.

    Processes on other hosts and malformed identifiers count as alive, since their state is unknown.
    """
    host, _, rest = owner.partition(":")
    pid, _, start = rest.partition(":")
    if host != socket.gethostname() or not pid.isdigit() or not start:
        return False
    now = started(int(pid))
    return now is not None and now != start


def started(pid: int) -> str | None:
    """Return the start time of a process, `GONE` if there is no such process, or None if it cannot be determined."""
    if (PROC / "self" / "stat").exists():
        fields = _stat(pid)
        # A zombie has ended; in containers it may never be reaped by its parent.
        return GONE if fields is None or fields[0] in "ZX" else fields[19]
    try:
        listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return listed.stdout.strip()


def _stat(pid: int) -> list[str] | None:
    """Return the fields of proc_pid_stat(5) behind the process name, which may contain spaces and brackets."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Linux file with the CPU quota of a container: microseconds per period, or max."""
SLOWEST = 4.0
"""Largest factor by which a busy machine is taken to delay work: it may have been busy for a moment."""
PROBE_SECONDS = 0.2
"""Processor seconds that measure how busy the machine is."""
LEAST = 0.05
"""Seconds of processor time per process that count as progress; a waiting process uses less in minutes."""


class Stopwatch:
    """Counts the seconds since it was made, and those in which this process used a processor."""

    def __init__(self) -> None:
        self._began, self._busy = time.perf_counter(), time.process_time()

    def elapsed(self) -> float:
        """Return the seconds since then."""
        return time.perf_counter() - self._began

    def busy(self) -> float:
        """Return the processor seconds of this process since then; more with several threads."""
        return time.process_time() - self._busy


def slowness(seconds: float = PROBE_SECONDS) -> float:
    """Return how many times as long work takes now as on an idle machine, from 1 to `SLOWEST`.

    It is measured by work of some processor seconds.
    """
    watch = Stopwatch()
    while watch.busy() < seconds:
        pass
    return min(max(watch.elapsed() / watch.busy(), 1.0), SLOWEST)


def cores() -> int:
    """Return the number of usable cores: by CPU affinity, and at most the container's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = QUOTA.read_text().split()
        return max(1, min(bound, math.ceil(int(allowed) / int(period))))
    except (OSError, ValueError):  # no container, another version of control groups, or no limit
        return bound


def processor_time(pid: int) -> float | None:
    """Return the processor time of a process and its ended children in seconds; None if unknown."""
    fields = _stat(pid)
    return None if fields is None else sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> Iterator[int]:
    """Yield the live descendants of a process."""
    for path in (PROC / str(pid) / "task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except OSError:  # the thread has ended
            continue
        for child in children:
            yield child
            yield from descendants(child)


class ProcessorUse:
    """Measures how long a process and its descendants, such as data loading workers, have been idle."""

    def __init__(self, pid: int) -> None:
        self.pid, self.moved = pid, time.monotonic()
        self.is_named = False
        """Whether the process was reported since its last progress; set by the caller that reports it."""
        self._used = 0.0

    def stood(self, heard: float = 0.0) -> float:
        """Return the seconds without progress, of which `heard` is the time of another sign; 0 if nothing is known."""
        last, now, own = max(self.moved, heard), time.monotonic(), processor_time(self.pid)
        times = [each for each in map(processor_time, descendants(self.pid)) if each is not None]
        used = (own or 0.0) + sum(times)
        if own is None or abs(used - self._used) > LEAST * (1 + len(times)):  # it decreases when a descendant ends
            self._used, last = used, now
        if last > self.moved:
            self.moved, self.is_named = last, False
        return now - self.moved


_PREFIX, _FIRST = ".crash-", "Fatal Python error: "


@contextmanager
def crashes_noted(folder: Path) -> Iterator[None]:
    """Write a note to a folder if this process crashes, for example by a segmentation fault, within the context."""
    path, was_enabled = folder / f"{_PREFIX}{this_process()}", faulthandler.is_enabled()
    try:
        note = path.open("w")
    except OSError:  # an unwritable folder is reported elsewhere
        yield
        return
    _disable_in_children()
    faulthandler.disable()  # enable() reinstalls handlers only after disable()
    faulthandler.enable(note, all_threads=False)
    try:
        yield
    finally:
        faulthandler.disable()
        if was_enabled and sys.__stderr__ is not None:
            with suppress(OSError, ValueError):
                faulthandler.enable(sys.__stderr__)
        note.close()
        path.unlink(missing_ok=True)


@cache
def _disable_in_children() -> None:
    """Keep a forked process from writing to its parent's note."""
    os.register_at_fork(after_in_child=faulthandler.disable)


def crash_of(folder: Path, process: str) -> str:
    """Return how a dead process crashed, such as `Segmentation fault`; empty if it left no note."""
    try:
        text = (folder / f"{_PREFIX}{process}").read_text(errors="replace")
    except OSError:
        return ""
    return text.partition("\n")[0].removeprefix(_FIRST)


def forget_crashes(folder: Path) -> None:
    """Remove the notes of dead processes."""
    for path in folder.glob(f"{_PREFIX}*"):
        if is_dead(path.name.removeprefix(_PREFIX)):
            path.unlink(missing_ok=True)


@contextmanager
def exits_as_errors() -> Iterator[None]:
    """Turn calls of `os._exit` in this thread into SystemExit, so that the process does not end silently."""
    process, thread, end = os.getpid(), threading.get_ident(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process or threading.get_ident() != thread:
            end(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = end
