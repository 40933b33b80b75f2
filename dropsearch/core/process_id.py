"""Who writes a run, and whether that process is still alive."""

from __future__ import annotations

import os
import socket
import subprocess
from functools import cache
from pathlib import Path

PROC = Path("/proc")
GONE = ""


def this_process() -> str:
    """Return `host:pid:start time` of this process: a name that no later process has."""
    return _name(os.getpid())


@cache  # by number, for a forked process is not its parent
def _name(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:{started(pid)}"


def is_here(owner: str) -> bool:
    """Say whether the process that bears this name is, or was, one of this host."""
    return owner.partition(":")[0] == socket.gethostname()


def is_dead(owner: str) -> bool:
    """Say whether the process that bears this name is known to be gone.

    A process on another host, or a name that cannot be read, counts as alive: nobody here can know.
    """
    host, _, rest = owner.partition(":")
    pid, _, start = rest.partition(":")
    if host != socket.gethostname() or not pid.isdigit() or not start:
        return False
    now = started(int(pid))
    return now is not None and now != start


def started(pid: int) -> str | None:
    """Return when the process started, `GONE` where there is none, None where that cannot be found out."""
    if (PROC / "self" / "stat").exists():
        return _started_by_proc(pid)
    try:
        listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return listed.stdout.strip()


def _started_by_proc(pid: int) -> str:
    """Read fields 3 and 22 of proc_pid_stat(5); the name before them may hold spaces and brackets."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return GONE
    state, start = fields[0], fields[19]
    # A zombie is a dead process whose parent has not looked yet; in containers nobody may ever look.
    return GONE if state in "ZX" else start
