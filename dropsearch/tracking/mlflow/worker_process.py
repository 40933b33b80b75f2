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
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

from dropsearch.core.errors import InputError, first_cause
from dropsearch.core.process_id import this_process
from dropsearch.tracking.mlflow.address import Address

NICENESS = 10
WATCH_SECONDS = 0.1
CLOSING_SECONDS = 10.0
"""For how long a process that is to end may go on with what it is doing."""


class MlflowWorkerError(Exception):
    """MLflow, or the process that calls it, failed; the message is the first cause."""


class WorkerConnection(Protocol):
    """Whatever calls the methods of a `MlflowWorker`."""

    def call(self, name: str, *given: Any) -> Any:
        """Call the method of that name and return what it returns."""
        ...

    def close(self) -> None:
        """End it; nothing can be called any more."""
        ...


def worker_at(address: Address) -> WorkerConnection:
    """Return a recorder in a process of its own where processes can be forked, else in this one."""
    # As for PyTorch's data loaders: a forked process that leaves CUDA alone may have a parent that does not.
    # A process of a pool is a daemon, which must not have children.
    if sys.platform == "linux" and not multiprocessing.current_process().daemon:
        with suppress(OSError):  # no more processes, or no more memory
            return MlflowWorkerProcess(partial(worker_here, address, this_process()))
    return worker_here(address)


def worker_here(address: Address, owner: str | None = None) -> WorkerConnection:
    """Return a recorder in this process, whose runs belong to `owner`, else to this process."""
    from dropsearch.tracking.mlflow.worker import MlflowWorker  # imports mlflow, most of a second

    return MlflowWorker(address, owner or this_process())


class MlflowWorkerProcess:
    """A recorder in a forked process, which ends with this one, however this one ends.

    Args:
        make: Makes the recorder, in the process, when it is first called.
    """

    def __init__(self, make: Callable[[], WorkerConnection]) -> None:
        context = multiprocessing.get_context("fork")
        self._parent, self._turn = os.getpid(), threading.Lock()
        self._connection, theirs = context.Pipe()
        given = (make, self._parent, theirs, self._connection)
        self._process = context.Process(target=_work, args=given, name="dropsearch-tracking", daemon=True)
        self._process.start()
        theirs.close()
        # Python would ask a forgotten process to end by SIGTERM, to which it does not listen, and wait for it.
        atexit.register(self.close)

    def call(self, name: str, *given: Any) -> Any:
        """Call the recorder's method of that name.

        Raises:
            InputError: As the method raises it.
            MlflowWorkerError: It raised something else, or its process ended.
        """
        # Not as `Connection.send` does it, where torch's tensors would go through shared memory.
        words = pickle.dumps((name, given))
        try:
            with self._turn:
                self._connection.send_bytes(words)
                word, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(1.0)
            code = self._process.exitcode or 0
            ending = signal.Signals(-code).name if code < 0 else f"status {code}"
            raise MlflowWorkerError(f"the process that writes to MLflow ended ({ending})") from None
        if word == "refused":
            raise InputError(answer)
        if word == "failed":
            raise MlflowWorkerError(answer)
        return answer

    def close(self) -> None:
        """End the process: at once where it is idle, after ten seconds where it is not, or where Ctrl-C ends those."""
        if os.getpid() != self._parent:  # a fork of ours that runs what was registered for the end of Python
            return
        try:
            if self._turn.acquire(timeout=CLOSING_SECONDS):
                # In a word: to close the pipe is none, where another process was forked that holds it as well.
                with suppress(OSError):
                    self._connection.send_bytes(b"")
                self._turn.release()
                self._process.join(CLOSING_SECONDS)
        finally:
            self._process.kill()
            self._process.join()
            self._connection.close()
            atexit.unregister(self.close)


def _work(make: Callable[[], WorkerConnection], parent: int, connection: Connection, inherited: Connection) -> None:
    # The parent decides what Ctrl-C and SIGTERM mean; both may reach the whole group of processes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    inherited.close()  # else the pipe would stay open when its owner dies
    with suppress(OSError):  # a sandbox may refuse it
        os.nice(NICENESS)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # its threads are the parent's: they were not forked
    gc.freeze()  # what the parent has made is not ours to look through
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    worker = cache(make)
    with suppress(EOFError, OSError):  # the parent is gone, or needs us no more
        while words := connection.recv_bytes():
            connection.send(_answer(worker, words))


def _answer(worker: Callable[[], WorkerConnection], words: bytes) -> tuple[str, Any]:
    try:
        name, given = pickle.loads(words)
        return "done", worker().call(name, *given)
    except InputError as error:
        return "refused", str(error)
    except Exception as error:  # whatever a server, a driver or a disk comes up with
        return "failed", first_cause(error)


def _end_with(parent: int) -> None:
    """End this process, whatever it is doing, when its parent is gone: the next run of the study may begin at once."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
