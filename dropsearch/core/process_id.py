"""Identifiers of processes, and checks whether a process is still alive."""

from __future__ import annotations

import os
import socket
import subprocess
from functools import cache
from pathlib import Path

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
        return _started_by_proc(pid)
    try:
        listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return listed.stdout.strip()


def _started_by_proc(pid: int) -> str:
    """Return field 22 of proc_pid_stat(5). The process name in front of the fields may contain spaces and brackets."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return GONE
    state, start = fields[0], fields[19]
    # A zombie has ended; in containers it may never be reaped by its parent.
    return GONE if state in "ZX" else start
