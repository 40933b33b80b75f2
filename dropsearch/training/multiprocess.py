"""Training by several workers for one feed: processes on this machine, or actors on several.

On a CPU, small networks gain little from threads within an operation, and convolutions gain nothing from stacked rows;
one process per core is faster. Workers ask for trials, report epochs and tell results to the feed of this process. A
crew (`crews.py`) starts the workers and communicates with them.
"""

from __future__ import annotations

import atexit
import math
import multiprocessing
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from dropsearch.core.errors import RunError
from dropsearch.core.printable import tell
from dropsearch.core.records import TrialResult, TrialSpec
from dropsearch.training.crews import Crew, ForkedCrew
from dropsearch.training.feeds import CheckedFeed
from dropsearch.training.protocols import INTERRUPTED, Engine, Feed

POLL_SECONDS = 0.1
GRACE, SAYS_AFTER = 6.0, 2.0
"""Seconds until processes are killed when a run is stopped, and until a message says what the run waits for."""
MOST_DEATHS = 3
"""Number of deaths per process, without an ended trial in between, after which the run ends."""


def can_fork() -> bool:
    """Return whether processes can be forked: on Linux, not in a pool's process, and not with CUDA's threads."""
    is_daemon = multiprocessing.current_process().daemon
    return sys.platform == "linux" and not is_daemon and not torch.cuda.is_available()


@dataclass
class _Worker:
    channel: Any
    open: dict[str, TrialSpec] = field(default_factory=dict)
    busy: bool = False
    share: int | None = None
    last_words: str = ""
    wanted: int = 0
    """Number of trials that it waits for: it has none open, and more will become available."""


class CrewEngine(Engine):
    """Trains the trials of a feed with the workers of a crew, of whose number `describe` makes a description.

    A trial that ends its worker (a crash, ``os._exit``) fails with that reason, and the worker is replaced. If several
    trials trained together in it, each of them is trained again alone to find the cause. If workers may end for other
    reasons, a trial is first trained again normally (`Crew.forgiven` times).
    """

    def __init__(self, crew: Crew, describe: Callable[[int], str]) -> None:
        self.crew, self._describe = crew, describe
        self.count = crew.wanted()
        # At exit, Python would send SIGTERM, which the processes ignore, and wait for them.
        atexit.register(self.close)
        self._workers = [_Worker(crew.start()) for _ in range(self.count)]
        self._again: deque[TrialSpec] = deque()
        """Trials whose worker ended, to be trained again normally."""
        self._suspects: deque[TrialSpec] = deque()
        """Trials whose worker ended while training several, to be trained again alone."""
        self._alone: set[str] = set()
        """Keys of the trials that are, or were, trained alone."""
        self._lost: Counter[str] = Counter()
        """Number of worker deaths by trial key."""
        self._is_exhausted = False
        """Whether the feed has no more trials for a worker."""
        self._asked_to_stop, self._has_warned = math.inf, False
        self._deaths = 0
        """Number of worker deaths since the last ended trial."""

    def describe(self, processes: int = 1) -> str:
        """Return the description of `processes` times as many workers."""
        return self._describe(self.count * processes)

    def run(self, feed: Feed) -> None:
        """Train until the feed has no more trials or is cancelled; raise `RunError` if processes keep dying."""
        feed = CheckedFeed(feed)
        self.crew.stop(False)
        self._asked_to_stop = math.inf
        self._is_exhausted = False
        self._set_to_work(feed)
        while waited_for := self._waited_for(feed):
            if feed.cancelled():
                self._stop_workers(waited_for)
            else:
                self._grow(feed)
            channels = [worker.channel for worker in self._workers if worker.busy]
            ready = set(self.crew.ready(channels, POLL_SECONDS))
            # Simultaneous messages are handled in the order of workers.
            for worker in [w for w in self._workers if w.channel in ready]:
                self._hear(worker, feed)
            if ready or feed.cancelled():
                for worker in [w for w in self._workers if w.wanted]:
                    self._offer(worker, worker.wanted, feed)
            if self._is_left_over() and not feed.cancelled():
                self._set_to_work(feed)
        lost, self._again, self._suspects = [*self._again, *self._suspects], deque(), deque()
        self._tell_failed(feed, lost, INTERRUPTED)

    def _waited_for(self, feed: Feed) -> list[_Worker]:
        """Return the workers to wait for, including starting ones as long as none has trained."""
        busy = [worker for worker in self._workers if worker.busy]
        needs_any = not feed.cancelled() and (bool(self._again or self._suspects) or not self._is_exhausted)
        return busy if needs_any else [worker for worker in busy if self.crew.has_arrived(worker.channel)]

    def _is_left_over(self) -> bool:
        """Return whether lost trials wait for idle workers; suspects wait until all are idle."""
        return bool(self._again) or bool(self._suspects and not any(worker.busy for worker in self._workers))

    def _grow(self, feed: Feed) -> None:
        while len(self._workers) < self.crew.wanted():
            self._workers.append(_Worker(self.crew.start()))
            self.count = len(self._workers)
            self._begin(self._workers[-1], self._share(self.count - 1, feed), feed)

    def _stop_workers(self, busy: Sequence[_Worker]) -> None:
        """Ask busy workers to stop; kill those that take longer than `GRACE` seconds."""
        now = time.monotonic()
        if self._asked_to_stop == math.inf:
            self.crew.stop(True)
            self._asked_to_stop, self._has_warned = now, False
        waited = now - self._asked_to_stop
        if waited > SAYS_AFTER and not self._has_warned:
            self._has_warned = True
            tell(f"stopping: waiting {GRACE:.0f} s for {len(busy)} processes to end their step")
        if waited > GRACE:
            for worker in busy:
                self.crew.kill(worker.channel)

    def processes(self) -> dict[int, list[str]]:
        """Return the ids of training processes on this machine with the keys of their trials."""
        found = {self.crew.pid(worker.channel): list(worker.open) for worker in [*self._workers] if worker.open}
        return {pid: keys for pid, keys in found.items() if pid is not None}

    def end_process(self, pid: int, why: str) -> None:
        """Kill a process; its trials fail with the reason."""
        for worker in [*self._workers]:
            if self.crew.pid(worker.channel) == pid:
                worker.last_words = why
                self.crew.kill(worker.channel)

    def _set_to_work(self, feed: Feed) -> None:
        for index, worker in enumerate([*self._workers]):
            share = self._share(index, feed)
            if share != 0 and not worker.busy:
                self._begin(worker, share, feed)

    def _share(self, index: int, feed: Feed) -> int | None:
        limit, count = feed.most_at_once, len(self._workers)
        return None if limit is None else limit // count + (index < limit % count)

    def _begin(self, worker: _Worker, share: int | None, feed: Feed) -> None:
        worker.busy, worker.share = True, share
        try:
            worker.channel.send(share)
        except (BrokenPipeError, ConnectionResetError):
            self._replace(worker, feed)

    def _hear(self, worker: _Worker, feed: Feed) -> None:
        try:
            word, *content = worker.channel.recv()
        except (EOFError, ConnectionResetError):
            self._replace(worker, feed)
            return
        if word == "ask":
            self._offer(worker, content[0], feed)
        elif word == "report":
            self._answer(worker, feed.report(*content))
        elif word == "tell":
            for result in content[0]:
                del worker.open[result.spec.key]
            self._deaths = 0
            feed.tell(*content)
        elif word == "done":
            worker.busy, self._is_exhausted = False, True
        elif word == "dying":
            worker.last_words = content[0]
        else:
            raise content[0]

    def _offer(self, worker: _Worker, count: int, feed: Feed) -> None:
        """Answer a worker that asks, or let it wait if it is idle and trials will become available."""
        specs = self._next(worker, count, feed)
        others_train = any(other.open for other in self._workers if other is not worker)
        if not specs and not worker.open and feed.held and others_train and not feed.cancelled():
            worker.wanted = count
            return
        worker.wanted = 0
        worker.open |= {spec.key: spec for spec in specs}
        self._answer(worker, (specs, feed.held))

    def _next(self, worker: _Worker, count: int, feed: Feed) -> list[TrialSpec]:
        """Return the next trials of a process: a suspect alone, or trials of the feed."""
        if any(spec.key in self._alone for spec in worker.open.values()):
            return []
        if self._suspects and not worker.open:
            suspect = self._suspects.popleft()
            self._alone.add(suspect.key)
            return [suspect]
        again = [self._again.popleft() for _ in range(min(count, len(self._again)))]
        return again + (feed.ask(count - len(again)) if len(again) < count else [])

    def _answer(self, worker: _Worker, answer: Any) -> None:
        # A process that died in the meantime is replaced at its next message.
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.channel.send(answer)

    def _replace(self, worker: _Worker, feed: Feed) -> None:
        """Handle the trials of an ended worker and replace the worker."""
        how, may_be_a_trials = self.crew.ending(worker.channel)
        ending = worker.last_words or how
        self._settle(list(worker.open.values()), ending, may_be_a_trials, feed)
        self._deaths += may_be_a_trials
        if self._deaths > MOST_DEATHS * self.count:
            raise RunError(
                f"training processes die before they end a trial, the last by {ending}: is there enough memory?"
            )
        index = self._workers.index(worker)
        if len(self._workers) > max(self.crew.wanted(), 1):  # the crew has become smaller
            del self._workers[index]
            return
        self._workers[index] = _Worker(self.crew.start())
        if not feed.cancelled():
            self._begin(self._workers[index], worker.share, feed)

    def _settle(self, lost: Sequence[TrialSpec], ending: str, may_be_a_trials: bool, feed: Feed) -> None:
        """Decide whether the trials of an ended worker fail or are trained again."""
        if feed.cancelled():
            self._tell_failed(feed, lost, INTERRUPTED)
            return
        if may_be_a_trials:
            self._lost.update(spec.key for spec in lost)
        guilty = [spec for spec in lost if may_be_a_trials and self._lost[spec.key] > self.crew.forgiven]
        self._again += [spec for spec in lost if spec not in guilty]
        if len(guilty) == len(lost) == 1:
            self._tell_failed(feed, guilty, f"its process died: {ending}")
        else:
            self._suspects += guilty

    def _tell_failed(self, feed: Feed, specs: Iterable[TrialSpec], reason: str) -> None:
        results = [TrialResult(spec, "FAIL", (), 0.0, reason) for spec in specs]
        if results:
            self._deaths = 0
            feed.tell(results)

    def close(self) -> None:
        """End the workers."""
        atexit.unregister(self.close)
        self.crew.close()


class ProcessEngine(CrewEngine):
    """Trains the trials of a feed in forked processes, each with one thread."""

    def __init__(self, engine: Engine, count: int) -> None:
        super().__init__(ForkedCrew(engine, count), engine.describe)
