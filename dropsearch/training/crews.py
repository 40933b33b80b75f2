"""Where the workers of a run are, and how it speaks to them: in forked processes, or in processes of their own."""

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
from dropsearch.training.remote_feed import Channel, work
from dropsearch.training.worker_forks import CLOSING_SECONDS, WATCH_SECONDS, Flag, WorkerForks


class Crew(Protocol):
    """Starts workers, carries what they say, and knows how they ended."""

    forgiven: int
    """How many deaths a trial may be part of before it is suspected: 0 where nothing but a trial ends a worker."""

    def wanted(self) -> int:
        """Return how many workers there should be now."""
        ...

    def start(self) -> Any:
        """Start a worker; return this side's end of its channel."""
        ...

    def ready(self, channels: Sequence[Any], seconds: float) -> list[Any]:
        """Wait until some of the workers have spoken or ended, but no longer than that; return those."""
        ...

    def has_arrived(self, channel: Any) -> bool:
        """Return whether a worker has a place to work in; until then nobody waits for it."""
        ...

    def ending(self, channel: Any) -> tuple[str, bool]:
        """Return how a worker that ended did, and whether a trial may be the cause."""
        ...

    def kill(self, channel: Any) -> None:
        """End a worker that does not listen."""
        ...

    def pid(self, channel: Any) -> int | None:
        """Return the process of a worker that is on this machine, else None."""
        ...

    def stop(self, stopped: bool) -> None:
        """Say to all workers whether to stop training."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


class _Pipe:
    """A worker's end of a pipe, which notices when the run has died.

    The run's end may stay open then: every process that it forked later holds it as well.
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
    # A run that was killed cannot say so; its process has another parent then.
    work(make_engine, pipe, lambda: stopped.is_set() or pipe.is_orphan(), threads)


class _ProcessCrew:
    """Workers in processes of this machine."""

    forgiven = 0

    def __init__(self, count: int, stopped: Any) -> None:
        self._count, self._stopped = count, stopped

    def wanted(self) -> int:
        """Return the number of processes."""
        return self._count

    def ready(self, channels: Sequence[Any], seconds: float) -> list[Any]:
        """Wait for a process to speak or end."""
        return list(wait(channels, seconds))

    def has_arrived(self, channel: Any) -> bool:
        """Return True: a process works from its start."""
        return True

    def stop(self, stopped: bool) -> None:
        """Set or clear the event that all processes look at."""
        (self._stopped.set if stopped else self._stopped.clear)()


class ForkedCrew(_ProcessCrew):
    """Processes that are forked from this one, and share what it has in memory. Linux only, and not beside CUDA.

    Args:
        engine: What trains in each.
        count: How many.
    """

    def __init__(self, engine: Engine, count: int) -> None:
        super().__init__(count, Flag())
        stopped = self._stopped
        self._forks = WorkerForks(lambda connection: _serve(lambda: engine, stopped, 1, connection))
        self.pids: dict[Any, int] = {}

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

    def pid(self, channel: Any) -> int | None:
        """Return the id of a process, None once it has ended."""
        return self.pids.get(channel)

    def kill(self, channel: Any) -> None:
        """Kill a process."""
        with suppress(ProcessLookupError, KeyError):
            os.kill(self.pids[channel], signal.SIGKILL)

    def close(self) -> None:
        """End the processes."""
        self.stop(True)
        for channel in self.pids:
            channel.close()
        self._forks.close()


class SpawnedCrew(_ProcessCrew):
    """Processes that begin anew, as CUDA and threads need it, each with environment variables of its own (its GPU).

    Args:
        make_engine: Makes what trains, in each process. It must be possible to pickle it.
        environments: The variables that each process has beside those of this one.
        threads: How many threads torch may use in each; 0 leaves them as they are.

    Raises:
        InputError: `make_engine` cannot be handed to another process.
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
        """Start a process, with the variables that no living one has."""
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
        self._used[ours] = process, environment
        return ours

    def ending(self, channel: Any) -> tuple[str, bool]:
        """Return the name of a signal or an exit status."""
        process, environment = self._used.pop(channel)
        channel.close()
        process.join()
        self._free.append(environment)
        code = process.exitcode
        return signal.Signals(-code).name if code < 0 else f"status {code}", True

    def pid(self, channel: Any) -> int | None:
        """Return the id of a process, None once it has ended."""
        return self._used[channel][0].pid if channel in self._used else None

    def kill(self, channel: Any) -> None:
        """Kill a process."""
        with suppress(KeyError):
            self._used[channel][0].kill()

    def close(self) -> None:
        """End the processes: those that have not ended within three seconds are killed."""
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
    """Return an object as another process can be given it, what has no name to import it by included.

    Raises:
        InputError: It holds something that belongs to this process, such as a lock or an open file.
    """
    from cloudpickle import dumps  # takes functions and classes of a notebook and of a script too

    try:
        return dumps(given)
    except Exception as error:
        raise InputError(
            f"several processes need a module and data that another process can be given, but {error}: make it where "
            "it is first used, or set engine.processes=1"
        ) from error


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Hide the script that runs: a process that begins anew would run it again, and with it the search."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _spawned(given: bytes, stopped: Any, threads: int, connection: Connection) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides what they mean
        signal.signal(number, signal.SIG_IGN)
    _serve(lambda: pickle.loads(given)(), stopped, threads, connection)
