"""The end of a run that was asked to stop and does not, whatever holds its main thread."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dropsearch.core.errors import STOPPED

DEADLINE = 9.0
"""Seconds from the first Ctrl-C or SIGTERM to the end of the process."""


def _leave() -> None:
    print("stopped: a step did not end in time; the same command continues the study", file=sys.stderr, flush=True)
    os._exit(STOPPED)


@contextmanager
def ends_in_time(leave: Callable[[], None] = _leave) -> Iterator[None]:
    """End the process soon after the first Ctrl-C or SIGTERM, unless the context ends before.

    A signal handler of Python waits for the main thread, which may wait for ever in code that is not Python's. The
    signal's number comes to a thread by a socket, also then. What was told to a study is on disk at any moment.

    Args:
        leave: What ends the process.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    if before != -1:  # an event loop, such as a notebook's, has its own way to stop
        signal.set_wakeup_fd(before)
        ours.close()
        theirs.close()
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            heard = ours.recv(1) if select.select([ours], [], [], 1.0)[0] else b""
            if not heard and ended.is_set():
                return
            if heard and heard[0] in (signal.SIGINT, signal.SIGTERM):
                if not ended.wait(DEADLINE):
                    leave()
                return

    thread = threading.Thread(target=watch, name="stop deadline", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(-1)
        theirs.close()
        thread.join()
        ours.close()
