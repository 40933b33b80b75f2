"""A fork server, which forks worker processes at any time, even after the main process has started threads.

A fork copies one thread, but all locks, so a process with threads must not fork. The server is forked at the start,
before there are threads; it forks workers on request and reports how they ended.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from dropsearch.core.errors import RunError

WATCH_SECONDS = 1.0
CLOSING_SECONDS = 3.0
"""Seconds that workers may take to end."""

Work = Callable[[Connection], None]


class Flag:
    """A flag shared by all forks of a process, without /dev/shm, which a semaphore needs."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Set the flag."""
        self._memory[0] = 1

    def clear(self) -> None:
        """Clear the flag."""
        self._memory[0] = 0

    def is_set(self) -> bool:
        """Return whether the flag is set."""
        return self._memory[0] == 1


class WorkerForks:
    """Starts workers as forks of the process at the creation of this object. Linux only."""

    def __init__(self, work: Work) -> None:
        self._socket, theirs = socket.socketpair()
        given = (theirs, self._socket, os.getpid(), work)
        self._process = multiprocessing.get_context("fork").Process(target=_serve, args=given, daemon=True)
        self._process.start()
        theirs.close()

    def fork(self) -> tuple[int, Connection]:
        """Start a worker; return its process id and our end of its pipe, or raise `RunError`."""
        ours, theirs = multiprocessing.Pipe()
        with theirs:
            try:
                socket.send_fds(self._socket, [b"fork"], [theirs.fileno()])
                return int(self._answer()), ours
            except (OSError, ValueError) as error:
                ours.close()
                raise RunError(f"no training process can be started ({error}): is there enough memory?") from error

    def ending(self, pid: int) -> str:
        """Wait for the end of a worker and return how it ended: the name of a signal, or an exit status."""
        try:
            self._socket.sendall(f"wait {pid}".encode())
            code = int(self._answer())
        except (OSError, ValueError):
            return "an unknown cause"
        return signal.Signals(-code).name if code < 0 else f"status {code}"

    def _answer(self) -> str:
        answer = self._socket.recv(256).decode()
        if not answer:
            raise OSError("the process that starts them has died")
        return answer

    def close(self) -> None:
        """End all workers; kill those that take longer than three seconds."""
        with suppress(OSError):
            self._socket.sendall(b"close")
        self._process.join(CLOSING_SECONDS + 5)
        if self._process.is_alive():
            self._process.kill()
        self._socket.close()


def _serve(requests: socket.socket, inherited: socket.socket, parent: int, work: Work) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # handled by the parent
        signal.signal(number, signal.SIG_IGN)
    inherited.close()
    workers: set[int] = set()
    while os.getppid() == parent:
        if not select.select([requests], [], [], WATCH_SECONDS)[0]:
            continue
        words, connections, *_ = socket.recv_fds(requests, 64, 1)
        if words == b"fork":
            _fork(requests, connections[0], work, workers)
        elif words.startswith(b"wait "):
            pid = int(words.split()[1])
            requests.sendall(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
            workers.discard(pid)
        else:
            break
    _end(workers)  # also workers that did not notice the end of the parent


def _fork(requests: socket.socket, connection: int, work: Work, workers: set[int]) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        os.close(connection)
        requests.sendall(str(error).encode())
        return
    if pid == 0:
        requests.close()
        _run(work, connection)
    os.close(connection)
    workers.add(pid)
    requests.sendall(str(pid).encode())


def _run(work: Work, connection: int) -> None:
    status = 1
    try:
        work(Connection(connection))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _end(workers: set[int]) -> None:
    until = time.monotonic() + CLOSING_SECONDS
    while workers and time.monotonic() < until:
        workers -= {pid for pid in workers if os.waitpid(pid, os.WNOHANG)[0]}
        time.sleep(0.01)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
