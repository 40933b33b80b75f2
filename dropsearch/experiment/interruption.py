"""Requests to stop a run, and the forced end of one that does not stop in time, even if its main thread is blocked."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from dropsearch.core.errors import STOPPED
from dropsearch.core.printable import tell

DEADLINE = 9.0
"""Seconds from the first Ctrl-C or SIGTERM to the forced end of the process."""
STOPPING = b"stopping when the current step has ended; Ctrl-C again stops at once\n"


def _leave() -> None:
    tell("stopped: a step did not end in time; the same command continues the study")
    os._exit(STOPPED)


@contextmanager
def ends_in_time(leave: Callable[[], None] = _leave) -> Iterator[None]:
    """End the process soon after the first Ctrl-C or SIGTERM, unless the context ends before.

    Python runs signal handlers in the main thread, which may be blocked in native code. A thread therefore receives the
    signal number through a socket. Finished trials are always on disk.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    if before != -1:  # an event loop, such as that of a notebook, handles signals itself
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


class Interruption:
    """Records requests to stop: after the first, the run ends cleanly; after the second, it ends immediately."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        """Return whether to stop."""
        return self.requested

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle Ctrl-C and SIGTERM as requests to stop within the context; only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with ends_in_time():
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        with suppress(OSError):  # print is not reentrant
            os.write(2, STOPPING)
