"""A separate process of low priority that calls MLflow.

MLflow takes three seconds for its import and tables, and ten milliseconds per run. In a thread, this time would delay
the trials because of the global interpreter lock.
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
from dropsearch.core.processes import this_process
from dropsearch.tracking.mlflow.address import Address

NICENESS = 10
WATCH_SECONDS = 0.1
CLOSING_SECONDS = 10.0
"""Seconds that a process may take to finish its current call when it is closed."""


class MlflowWorkerError(Exception):
    """MLflow or its process failed; the message is the first cause."""


class WorkerConnection(Protocol):
    """Calls the methods of an `MlflowWorker`, in this or another process."""

    def call(self, name: str, *given: Any) -> Any:
        """Call a method and return its result."""
        ...

    def close(self) -> None:
        """End the worker; no calls are possible afterwards."""
        ...


def worker_at(address: Address) -> WorkerConnection:
    """Return a worker in a separate process if processes can be forked, else in this process."""
    # As in PyTorch's data loaders, a forked process that does not use CUDA may have a parent that does.
    # A process of a pool is a daemon and cannot have children.
    if sys.platform == "linux" and not multiprocessing.current_process().daemon:
        with suppress(OSError):  # no more processes, or no more memory
            return MlflowWorkerProcess(partial(worker_here, address, this_process()))
    return worker_here(address)


def worker_here(address: Address, owner: str | None = None) -> WorkerConnection:
    """Return a worker in this process; its runs belong to `owner`, by default this process."""
    from dropsearch.tracking.mlflow.worker import MlflowWorker  # imports mlflow, most of a second

    return MlflowWorker(address, owner or this_process())


class MlflowWorkerProcess:
    """A worker in a forked process, which always ends with this one."""

    def __init__(self, make: Callable[[], WorkerConnection]) -> None:
        context = multiprocessing.get_context("fork")
        self._parent, self._turn = os.getpid(), threading.Lock()
        self._connection, theirs = context.Pipe()
        given = (make, self._parent, theirs, self._connection)
        self._process = context.Process(target=_work, args=given, name="dropsearch-tracking", daemon=True)
        self._process.start()
        theirs.close()
        # At exit, Python would send SIGTERM, which the process ignores, and wait for it.
        atexit.register(self.close)

    def call(self, name: str, *given: Any) -> Any:
        """Call a method of the worker.

        Raises:
            InputError: The method raised it.
            MlflowWorkerError: The method raised another error, or the process ended.
        """
        # Pickled here, because `Connection.send` would pass torch's tensors through shared memory.
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
        """End the process: immediately if idle, otherwise after ten seconds or at Ctrl-C."""
        if os.getpid() != self._parent:  # a fork of this process that runs inherited exit handlers
            return
        try:
            if self._turn.acquire(timeout=CLOSING_SECONDS):
                # Explicit message, since another fork may hold the pipe open.
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
    # The parent handles Ctrl-C and SIGTERM, which may be sent to the whole process group.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    inherited.close()  # otherwise the pipe stays open when its owner dies
    with suppress(OSError):  # a sandbox may refuse it
        os.nice(NICENESS)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # the parent's threads were not forked
    gc.freeze()  # excludes the parent's objects from collection
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    worker = cache(make)
    with suppress(EOFError, OSError):  # the parent has ended or closed the pipe
        while words := connection.recv_bytes():
            connection.send(_answer(worker, words))


def _answer(worker: Callable[[], WorkerConnection], words: bytes) -> tuple[str, Any]:
    try:
        name, given = pickle.loads(words)
        return "done", worker().call(name, *given)
    except InputError as error:
        return "refused", str(error)
    except Exception as error:  # any error is reported to the parent
        return "failed", first_cause(error)


def _end_with(parent: int) -> None:
    """End this process when its parent ends, since the next run of the study may start immediately."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
