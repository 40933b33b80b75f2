"""Several engines at once, each in a process of its own with one thread, all fed by one feed.

On a CPU small networks gain little from threads within an operation, and convolutions gain nothing from
arrays: one process a core does better. The processes are forked once, before anything else runs, and then
ask for trials, report epochs and tell results over pipes; the feed stays where it is.
"""

from __future__ import annotations

import atexit
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from dropsearch.core.errors import InputError, RunError
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.training.protocols import INTERRUPTED, Engine, Feed

POLL_SECONDS = 0.1
WATCH_SECONDS = 1.0

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


def can_fork() -> bool:
    """Return whether processes can be forked: on Linux, but by no pool's process, and not beside CUDA's threads."""
    is_daemon = multiprocessing.current_process().daemon
    return sys.platform == "linux" and not is_daemon and not torch.cuda.is_available()


@dataclass
class _Worker:
    process: Any
    connection: Connection
    open: dict[str, TrialSpec] = field(default_factory=dict)
    """The trials that it has asked for and not told, by key."""
    busy: bool = False


class ProcessEngine:
    """Trains the trials of a feed in forked processes.

    Args:
        engine: What trains in each process.
        count: How many processes.
    """

    def __init__(self, engine: Engine, count: int) -> None:
        self.engine, self.count = engine, count
        context = multiprocessing.get_context("fork")
        self._stop = context.Event()
        self._workers: list[_Worker] = []
        # Python would ask forgotten processes to end by SIGTERM, to which they do not listen, and wait for them.
        atexit.register(self.close)
        for _ in range(count):
            ours, theirs = context.Pipe()
            inherited = [worker.connection for worker in self._workers] + [ours]
            process = context.Process(target=_work, args=(engine, theirs, self._stop, inherited), daemon=True)
            process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours))

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
            RunError: Every process died.
        """
        self._stop.clear()
        self._set_to_work(feed)
        while any(worker.busy for worker in self._workers):
            if feed.cancelled():
                self._stop.set()
            ready = set(wait([w.connection for w in self._workers if w.busy], POLL_SECONDS))
            # Of those that speak at the same time the first process comes first: when they speak is not in our hands.
            for worker in [w for w in self._workers if w.connection in ready]:
                self._hear(worker, feed)

    def _set_to_work(self, feed: Feed) -> None:
        """Set every process to work, but no more than may have trials open, each with its share of them."""
        limit, count = feed.most_at_once, len(self._workers)
        for index, worker in enumerate(self._workers):
            share = None if limit is None else limit // count + (index < limit % count)
            if share != 0 and not worker.busy:
                worker.connection.send(share)
                worker.busy = True

    def _hear(self, worker: _Worker, feed: Feed) -> None:
        try:
            word, *content = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self._bury(worker, feed)
            return
        if word == "ask":
            specs = feed.ask(*content)
            worker.open |= {spec.key: spec for spec in specs}
            self._answer(worker, specs)
        elif word == "report":
            self._answer(worker, feed.report(*content))
        elif word == "tell":
            for result in content[0]:
                del worker.open[result.spec.key]
            feed.tell(*content)
        elif word == "done":
            worker.busy = False
        else:
            raise content[0]

    def _answer(self, worker: _Worker, answer: Any) -> None:
        # A process that died meanwhile is buried when it is listened to next.
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(answer)

    def _bury(self, worker: _Worker, feed: Feed) -> None:
        worker.process.join()
        self._workers.remove(worker)
        code = worker.process.exitcode or 0
        ending = signal.Signals(-code).name if code < 0 else f"status {code}"
        # Of several trials in an array none can be blamed: as interrupted ones they are asked again by the next run.
        blamed = len(worker.open) == 1 and not feed.cancelled()
        reason = f"its process died: {ending}" if blamed else INTERRUPTED
        if worker.open:
            feed.tell([TrialResult(spec, "FAIL", (), 0.0, reason) for spec in worker.open.values()])
        if not self._workers:
            raise RunError(f"every training process died, the last by {ending}: is there enough memory?")

    def close(self) -> None:
        """End the processes."""
        atexit.unregister(self.close)
        self._stop.set()
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join(timeout=10)
            if worker.process.is_alive():
                worker.process.kill()


def _work(engine: Engine, connection: Connection, stop: Any, inherited: list[Connection]) -> None:
    # The parent decides what Ctrl-C and SIGTERM mean; both may reach the whole group of processes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for other in inherited:  # else a pipe would stay open when its owner dies
        other.close()
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

    def __init__(self, connection: Connection, stop: Any, parent: int, most_at_once: int | None) -> None:
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
