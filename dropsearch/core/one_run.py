"""One run at a time in a process: a run owns the global random generators, torch's settings and remembered secrets."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dropsearch.core.errors import InputError

_lock = threading.Lock()
_running: dict[int, str] = {}
"""Name of the thread of the run, by process: a forked process inherits the run of its parent, but does not run it."""


@contextmanager
def one_run() -> Iterator[None]:
    """Refuse a second run in this process until the context exits.

    Raises:
        InputError: A run goes on in this process, in another thread or in this one (user code started another one).
    """
    process, thread = os.getpid(), threading.current_thread().name
    with _lock:
        if process in _running:
            raise InputError(
                "a process runs one search at a time, since trials seed its random generators; one goes on in thread "
                f"{_running[process]}, and thread {thread} starts another: run them one after the other, or each in "
                "its own process"
            )
        _running[process] = thread
    try:
        yield
    finally:
        _running.pop(process, None)
