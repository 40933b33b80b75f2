"""The process in which MLflow is called, beside the one that trains.

MLflow takes ten milliseconds of Python a run, and three seconds until it is imported and its tables are made. In a
thread that is time in which the trials get no answers, for Python runs one thread at a time. A process of its own, of
low priority, takes what the training leaves of the cores.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

from dropsearch.errors import InputError, first_cause
from dropsearch.owner import this_process
from dropsearch.tracking.address import Address

NICENESS = 10
WATCH_SECONDS = 0.1


class RecordingError(Exception):
    """MLflow, or the process that calls it, failed; the message is the first cause."""


class Recording(Protocol):
    """Whatever calls the methods of a `Recorder`."""

    def call(self, name: str, *given: Any) -> Any:
        """Call the method of that name and return what it returns."""
        ...

    def close(self) -> None:
        """End it; nothing can be called any more."""
        ...


def recording_at(address: Address) -> Recording:
    """Return a recorder in a process of its own where processes can be forked, else in this one."""
    # As for PyTorch's data loaders: a forked process that leaves CUDA alone may have a parent that does not.
    if sys.platform != "linux":
        return recording_here(address)
    return RecordingProcess(partial(recording_here, address, this_process()))


def recording_here(address: Address, owner: str | None = None) -> Recording:
    """Return a recorder in this process, whose runs belong to `owner`, else to this process."""
    from dropsearch.tracking.recorder import Recorder  # imports mlflow, most of a second

    return Recorder(address, owner or this_process())


class RecordingProcess:
    """A recorder in a forked process, which ends with this one, however this one ends.

    To call is for one thread at a time.

    Args:
        make: Makes the recorder, in the process, when it is first called.
    """

    def __init__(self, make: Callable[[], Recording]) -> None:
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        given = (make, os.getpid(), theirs, self._connection)
        self._process = context.Process(target=_work, args=given, name="dropsearch-tracking", daemon=True)
        self._process.start()
        theirs.close()
        # Python would ask a forgotten process to end by SIGTERM, to which it does not listen, and wait for it.
        atexit.register(self.close)

    def call(self, name: str, *given: Any) -> Any:
        """Call the recorder's method of that name.

        Raises:
            InputError: As the method raises it.
            RecordingError: It raised something else, or its process ended.
        """
        try:
            self._connection.send((name, given))
            word, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(1.0)
            code = self._process.exitcode or 0
            ending = signal.Signals(-code).name if code < 0 else f"status {code}"
            raise RecordingError(f"the process that writes to MLflow ended ({ending})") from None
        if word == "refused":
            raise InputError(answer)
        if word == "failed":
            raise RecordingError(answer)
        return answer

    def close(self) -> None:
        """End the process: at once where it is idle, after ten seconds where it is not."""
        atexit.unregister(self.close)
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _work(make: Callable[[], Recording], parent: int, connection: Connection, inherited: Connection) -> None:
    # The parent decides what Ctrl-C and SIGTERM mean; both may reach the whole group of processes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    inherited.close()  # else the pipe would stay open when its owner dies
    os.nice(NICENESS)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # its threads are the parent's: they were not forked
    gc.freeze()  # what the parent has made is not ours to look through
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    recorder = cache(make)
    with suppress(EOFError, OSError):  # the parent is gone, or needs us no more
        while True:
            name, given = connection.recv()
            connection.send(_answer(recorder, name, given))


def _answer(recorder: Callable[[], Recording], name: str, given: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "done", recorder().call(name, *given)
    except InputError as error:
        return "refused", str(error)
    except Exception as error:  # whatever a server, a driver or a disk comes up with
        return "failed", first_cause(error)


def _end_with(parent: int) -> None:
    """End this process, whatever it is doing, when its parent is gone: the next run of the study may begin at once."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
