"""Several engines at once, each in a process of its own with one thread, all fed by one feed.

On a CPU small networks gain little from threads within an operation, and convolutions gain nothing from
arrays: one process a core does better. The processes ask for trials, report epochs and tell results over pipes; the
feed stays where it is.
"""

from __future__ import annotations

import atexit
import math
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from dropsearch.core.errors import InputError, RunError
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.core.user_errors import described
from dropsearch.training.protocols import INTERRUPTED, Engine, Feed
from dropsearch.training.worker_forks import WATCH_SECONDS, Flag, WorkerForks

POLL_SECONDS = 0.1
GRACE, SAYS_AFTER = 6.0, 2.0
"""Seconds that processes have to end when a run is stopped, and after which the terminal says what is waited for."""
STALLED, KILLED = 60.0, 300.0
"""Seconds for which a process uses no processor time and says nothing until it is named, and until it is killed."""
MOST_DEATHS = 3
"""How many deaths for each process, without a trial that ended in between, end the run."""

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much of the processors a container may use: microseconds of each period, or max."""


def cores() -> int:
    """Return how many cores this process may use: those it is bound to, and no more than its container's share."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = QUOTA.read_text().split()
        return max(1, min(bound, math.ceil(int(allowed) / int(period))))
    except (OSError, ValueError):  # no container, another version of control groups, or no limit
        return bound


def processor_time(pid: int) -> float:
    """Return the seconds of processor time that a process and its ended children have used; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def can_fork() -> bool:
    """Return whether processes can be forked: on Linux, but by no pool's process, and not beside CUDA's threads."""
    is_daemon = multiprocessing.current_process().daemon
    return sys.platform == "linux" and not is_daemon and not torch.cuda.is_available()


@dataclass
class _Worker:
    pid: int
    connection: Connection
    open: dict[str, TrialSpec] = field(default_factory=dict)
    """The trials that it has asked for and not told, by key."""
    busy: bool = False
    share: int | None = None
    """How many trials it may have open."""
    last_words: str = ""
    """Why it is ending, where it could say so."""
    used: float = 0.0
    """Seconds of processor time at its last sign of progress."""
    moved: float = field(default_factory=time.monotonic)
    """When that was."""
    is_named: bool = False
    """Whether the terminal said that it stands still."""


class ProcessEngine:
    """Trains the trials of a feed in forked processes.

    A trial that ends its process (a crash, ``os._exit``) fails with that reason, and another process takes the place.
    Where several trials trained together in it, each of them is trained again alone, to find the one that did.

    Args:
        engine: What trains in each process.
        count: How many processes.
    """

    def __init__(self, engine: Engine, count: int) -> None:
        self.engine, self.count = engine, count
        self._stop = Flag()
        self._forks = WorkerForks(partial(_work, engine, self._stop))
        # Python would ask forgotten processes to end by SIGTERM, to which they do not listen, and wait for them.
        atexit.register(self.close)
        self._workers = [_Worker(*self._forks.fork()) for _ in range(count)]
        self._suspects: deque[TrialSpec] = deque()
        """Trials whose process ended while it trained several: they are trained again, each alone in a process."""
        self._alone: set[str] = set()
        """The keys of the trials that are, or were, trained alone for that reason."""
        self._asked_to_stop, self._has_said = math.inf, False
        self._deaths = 0
        """How many processes ended since a trial was last told."""

    @property
    def description(self) -> str:
        """The description of the engine and the number of processes."""
        return self.engine.describe(self.count)

    def describe(self, processes: int) -> str:
        """Return the description of `processes` times as many processes."""
        return self.engine.describe(self.count * processes)

    def run(self, feed: Feed) -> None:
        """Train until the feed has no more trials or is cancelled.

        Raises:
            RunError: Processes die before they train anything.
        """
        self._stop.clear()
        self._set_to_work(feed)
        while any(worker.busy for worker in self._workers):
            if feed.cancelled():
                self._stop_workers()
            ready = set(wait([w.connection for w in self._workers if w.busy], POLL_SECONDS))
            # Of those that speak at the same time the first process comes first: when they speak is not in our hands.
            for worker in [w for w in self._workers if w.connection in ready]:
                worker.moved, worker.is_named = time.monotonic(), False
                self._hear(worker, feed)
            for worker in self._workers:
                self._watch(worker)
            if self._suspects and not any(worker.busy for worker in self._workers) and not feed.cancelled():
                self._set_to_work(feed)
        suspects, self._suspects = self._suspects, deque()
        if suspects:
            self._tell_failed(feed, suspects, INTERRUPTED)

    def _stop_workers(self) -> None:
        """Ask busy processes to stop; kill those that have not after `GRACE` seconds, such as one that sleeps."""
        now = time.monotonic()
        if not self._stop.is_set():
            self._stop.set()
            self._asked_to_stop, self._has_said = now, False
        waited, busy = now - self._asked_to_stop, [worker for worker in self._workers if worker.busy]
        if waited > SAYS_AFTER and not self._has_said:
            self._has_said = True
            print(f"stopping: waiting {GRACE:.0f} s for {len(busy)} processes to end their step", file=sys.stderr)
        if waited > GRACE:
            for worker in busy:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

    def _watch(self, worker: _Worker) -> None:
        """Name a process that makes no progress, as one in a deadlock; kill it after some time: its trial fails."""
        if not worker.busy or not worker.open:
            return
        now, used = time.monotonic(), processor_time(worker.pid)
        if used > worker.used + 0.05:
            worker.used, worker.moved, worker.is_named = used, now, False
        stood = now - worker.moved
        if stood > STALLED and not worker.is_named:
            worker.is_named = True
            print(
                f"process {worker.pid} makes no progress: no processor time for {stood:.0f} s while it trains "
                f"{', '.join(worker.open)}; it is ended after {KILLED:.0f} s",
                file=sys.stderr,
            )
        if stood > KILLED and not worker.last_words:
            worker.last_words = f"no progress for {stood:.0f} s: a deadlock, or a wait for something that never came"
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    def _set_to_work(self, feed: Feed) -> None:
        """Set every process to work, but no more than may have trials open, each with its share of them."""
        limit, count = feed.most_at_once, len(self._workers)
        for index, worker in enumerate([*self._workers]):
            share = None if limit is None else limit // count + (index < limit % count)
            if share != 0 and not worker.busy:
                self._begin(worker, share, feed)

    def _begin(self, worker: _Worker, share: int | None, feed: Feed) -> None:
        worker.busy, worker.share = True, share
        try:
            worker.connection.send(share)
        except (BrokenPipeError, ConnectionResetError):
            self._replace(worker, feed)

    def _hear(self, worker: _Worker, feed: Feed) -> None:
        try:
            word, *content = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self._replace(worker, feed)
            return
        if word == "ask":
            specs = self._next(worker, content[0], feed)
            worker.open |= {spec.key: spec for spec in specs}
            self._answer(worker, specs)
        elif word == "report":
            self._answer(worker, feed.report(*content))
        elif word == "tell":
            for result in content[0]:
                del worker.open[result.spec.key]
            self._deaths = 0
            feed.tell(*content)
        elif word == "done":
            worker.busy = False
        elif word == "dying":
            worker.last_words = content[0]
        else:
            raise content[0]

    def _next(self, worker: _Worker, count: int, feed: Feed) -> list[TrialSpec]:
        """Return the next trials of a process: a suspect alone, else those of the feed."""
        if any(spec.key in self._alone for spec in worker.open.values()):
            return []
        if self._suspects and not worker.open:
            suspect = self._suspects.popleft()
            self._alone.add(suspect.key)
            return [suspect]
        return feed.ask(count)

    def _answer(self, worker: _Worker, answer: Any) -> None:
        # A process that died meanwhile is replaced when it is listened to next.
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(answer)

    def _replace(self, worker: _Worker, feed: Feed) -> None:
        """Settle the trials of a process that has ended, and set another one in its place to work."""
        ending = worker.last_words or self._forks.ending(worker.pid)
        worker.connection.close()
        lost, self._deaths = list(worker.open.values()), self._deaths + 1
        if feed.cancelled():
            self._tell_failed(feed, lost, INTERRUPTED)
        elif len(lost) == 1:
            self._tell_failed(feed, lost, f"its process died: {ending}")
        else:
            self._suspects += lost
        if self._deaths > MOST_DEATHS * self.count:
            raise RunError(
                f"training processes die before they end a trial, the last by {ending}: is there enough memory?"
            )
        index = self._workers.index(worker)
        self._workers[index] = _Worker(*self._forks.fork())
        if not feed.cancelled():
            self._begin(self._workers[index], worker.share, feed)

    def _tell_failed(self, feed: Feed, specs: Iterable[TrialSpec], reason: str) -> None:
        results = [TrialResult(spec, "FAIL", (), 0.0, reason) for spec in specs]
        if results:
            self._deaths = 0
            feed.tell(results)

    def close(self) -> None:
        """End the processes."""
        atexit.unregister(self.close)
        self._stop.set()
        for worker in self._workers:
            worker.connection.close()
        self._forks.close()


def _work(engine: Engine, stop: Flag, connection: Connection) -> None:
    torch.set_num_threads(1)
    parent = os.getppid()
    try:
        while True:
            share = _heard(connection, parent)
            engine.run(_Remote(connection, stop, parent, share))
            connection.send(("done",))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone, or needs us no more
    except (InputError, RunError) as error:
        connection.send(("failed", error))
    except (SystemExit, KeyboardInterrupt) as error:  # a trial's: signals from outside are ignored here
        connection.send(("dying", described(error)))
    except Exception as error:
        connection.send(("failed", RunError(f"{type(error).__name__}: {error}")))


def _heard(connection: Connection, parent: int) -> Any:
    """Return the next word of the parent's.

    Raises:
        EOFError: It died.
    """
    # Its end of the pipe may stay open when it dies: every process that it forked later holds it as well.
    while not connection.poll(WATCH_SECONDS):
        if os.getppid() != parent:
            raise EOFError
    return connection.recv()


class _Remote:
    """The parent's feed, seen from a worker."""

    def __init__(self, connection: Connection, stop: Flag, parent: int, most_at_once: int | None) -> None:
        self._connection, self._stop, self._parent = connection, stop, parent
        self.most_at_once = most_at_once

    def _answer(self, *words: Any) -> Any:
        self._connection.send(words)
        return _heard(self._connection, self._parent)

    def ask(self, count: int) -> list[TrialSpec]:
        return self._answer("ask", count)

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        return self._answer("report", list(reports))

    def tell(self, results: Sequence[TrialResult]) -> None:
        self._connection.send(("tell", list(results)))

    def cancelled(self) -> bool:
        # A parent that was killed cannot say so; its child has another parent then.
        return self._stop.is_set() or os.getppid() != self._parent
