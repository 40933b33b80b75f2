"""Crews of worker processes: forked or spawned, and the communication with them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any, Protocol

from dropsearch.core.errors import InputError
from dropsearch.training.protocols import Engine
from dropsearch.training.worker import Channel, work
from dropsearch.training.worker_forks import CLOSING_SECONDS, WATCH_SECONDS, Flag, WorkerForks


class Crew(Protocol):
    """Starts workers, receives their messages, and reports how they ended; crews inherit from it."""

    forgiven: int
    """Number of worker deaths before a trial is suspected: 0 if only a trial can end a worker."""

    def wanted(self) -> int:
        """Return the current target number of workers."""
        ...

    def start(self) -> Any:
        """Start a worker; return this side's end of its channel."""
        ...

    def ready(self, channels: Sequence[Any], seconds: float) -> list[Any]:
        """Wait at most `seconds` for messages or ends of workers; return these workers."""
        ...

    def has_arrived(self, channel: Any) -> bool:
        """Return whether a worker has started; until then, the run does not wait for it."""
        return True

    def ending(self, channel: Any) -> tuple[str, bool]:
        """Return how a worker ended, and whether a trial may be the cause."""
        ...

    def kill(self, channel: Any) -> None:
        """Kill an unresponsive worker."""
        ...

    def pid(self, channel: Any) -> int | None:
        """Return the process id of a worker on this machine, else None."""
        return None

    def stop(self, stopped: bool) -> None:
        """Tell all workers whether to stop training."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


class _Pipe:
    """A worker's end of a pipe that detects the death of the run.

    The run's end may stay open, since processes that were forked later also hold it.
    """

    def __init__(self, connection: Connection, parent: int) -> None:
        self._connection, self._parent = connection, parent
        self.send = connection.send

    def is_orphan(self) -> bool:
        return os.getppid() != self._parent

    def recv(self) -> Any:
        while not self._connection.poll(WATCH_SECONDS):
            if self.is_orphan():
                raise EOFError
        return self._connection.recv()


def _serve(make_engine: Callable[[], Engine], stopped: Any, threads: int, connection: Connection) -> None:
    pipe = _Pipe(connection, os.getppid())
    # A killed run sends no message, but its workers then have another parent.
    work(make_engine, pipe, lambda: stopped.is_set() or pipe.is_orphan(), threads)


class _ProcessCrew(Crew):
    forgiven = 0

    def __init__(self, count: int, stopped: Any) -> None:
        self._count, self._stopped = count, stopped
        self.pids: dict[Any, int] = {}

    def wanted(self) -> int:
        return self._count

    def ready(self, channels: Sequence[Any], seconds: float) -> list[Any]:
        return list(wait(channels, seconds))

    def pid(self, channel: Any) -> int | None:
        return self.pids.get(channel)

    def kill(self, channel: Any) -> None:
        with suppress(ProcessLookupError, KeyError):
            os.kill(self.pids[channel], signal.SIGKILL)

    def stop(self, stopped: bool) -> None:
        (self._stopped.set if stopped else self._stopped.clear)()


class ForkedCrew(_ProcessCrew):
    """Processes forked from this one, which share its memory. Linux only, and not with CUDA."""

    def __init__(self, engine: Engine, count: int) -> None:
        super().__init__(count, Flag())
        stopped = self._stopped
        self._forks = WorkerForks(lambda connection: _serve(lambda: engine, stopped, 1, connection))

    def start(self) -> Channel:
        """Fork a process."""
        pid, channel = self._forks.fork()
        self.pids[channel] = pid
        return channel

    def ending(self, channel: Any) -> tuple[str, bool]:
        """Return the name of a signal or an exit status."""
        pid = self.pids.pop(channel)
        channel.close()
        return self._forks.ending(pid), True

    def close(self) -> None:
        """End the processes."""
        self.stop(True)
        for channel in self.pids:
            channel.close()
        self._forks.close()


class SpawnedCrew(_ProcessCrew):
    """Spawned processes, as CUDA and threads require, each with its own environment variables (its GPU).

    `make_engine` makes the engine in each process; 0 `threads` leave torch's number unchanged.
    """

    def __init__(
        self, make_engine: Callable[[], Engine], environments: Sequence[Mapping[str, str]], threads: int = 0
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        super().__init__(len(environments), self._context.Event())
        self._given, self._threads = pickled(make_engine), threads
        self._free = list(environments)
        self._used: dict[Any, tuple[Any, Mapping[str, str]]] = {}

    def start(self) -> Channel:
        """Start a process with environment variables that no running one has."""
        ours, theirs = self._context.Pipe()
        environment = self._free.pop(0)
        process = self._context.Process(target=_spawned, args=(self._given, self._stopped, self._threads, theirs))
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            with _hidden_main():
                process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        theirs.close()
        assert process.pid is not None
        self._used[ours], self.pids[ours] = (process, environment), process.pid
        return ours

    def ending(self, channel: Any) -> tuple[str, bool]:
        """Return the name of a signal or an exit status."""
        process, environment = self._used.pop(channel)
        del self.pids[channel]
        channel.close()
        process.join()
        self._free.append(environment)
        code = process.exitcode
        return signal.Signals(-code).name if code < 0 else f"status {code}", True

    def close(self) -> None:
        """End the processes; kill those that take longer than three seconds."""
        self.stop(True)
        for channel in self._used:
            channel.close()
        until = time.monotonic() + CLOSING_SECONDS
        for process, _ in self._used.values():
            process.join(max(until - time.monotonic(), 0.01))
            if process.is_alive():
                process.kill()
        self._used.clear()


def pickled(given: Any) -> bytes:
    """Pickle an object, including functions and classes that cannot be imported by name.

    Raises:
        InputError: The object contains something that belongs to this process, such as a lock or an open file.
    """
    from cloudpickle import dumps  # supports functions and classes of notebooks and scripts

    try:
        return dumps(given)
    except Exception as error:
        raise InputError(
            f"several processes need a module and data that can be pickled, but {error}: create it where "
            "it is first used, or set engine.processes=1"
        ) from error


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Hide the running script, which a spawned process would run again, including the search."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _spawned(given: bytes, stopped: Any, threads: int, connection: Connection) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # handled by the parent
        signal.signal(number, signal.SIG_IGN)
    _serve(lambda: pickle.loads(given)(), stopped, threads, connection)
