"""The feed of an arm's search, whose trials follow from its seed, and the virtual clock by which they do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence, Set
from itertools import takewhile

from optuna.trial import FrozenTrial

from dropsearch.core.errors import RunError
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.core.seeds import derived_seed, trial_seed
from dropsearch.study.feeds import DIVERGED, StudyFeed, common_failure, may_succeed, release_invalid
from dropsearch.study.search_space import Params, Space
from dropsearch.study.store import StudyStore
from dropsearch.study.trial_entry import TrialKey


class TrialClock:
    """Simulates a machine that trains a fixed number of trials at once, with one epoch per tick.

    A trial knows the results that exist when it starts on this virtual machine, regardless of the real order. Engine,
    width, processes and load therefore do not affect proposals and pruning.

    Example:
        >>> clock = TrialClock(2)
        >>> clock.start(0), clock.start(1)
        (0, 0)
        >>> clock.end(0, 3)
        >>> clock.start(2) is None  # trial 1 may end earlier
        True
        >>> clock.survive(1, 3)
        >>> clock.start(2), clock.unknown(2)
        (3, {1})
    """

    def __init__(self, places: int) -> None:
        self._count = places
        self._places: list[int] = []
        """Index of the trial in each place; an ended trial stays until the next one replaces it."""
        self._starts: list[int] = []
        self._durations: dict[int, int] = {}
        self._survived: dict[int, int] = {}
        self._ahead: set[int] = set()
        """Ended trials that have not started on this clock yet: those of an earlier run of the study."""
        self._late: set[int] = set()
        """Trials whose results some running trial must not know."""

    def survive(self, index: int, epochs: int) -> None:
        """Record that a trial has finished a number of epochs and continues."""
        self._survived[index] = max(epochs, self._survived.get(index, 0))

    def end(self, index: int, epochs: int) -> None:
        """Record the number of epochs of an ended trial, including a failed one; 0 if it failed before the first."""
        self._durations[index] = max(epochs, self._survived.get(index, 0))
        if index >= len(self._starts):
            self._ahead.add(index)

    def start(self, index: int) -> int | None:
        """Return the start tick of a trial, or None if it depends on running trials."""
        while len(self._starts) <= index:
            begun = self._next_start()
            if begun is None:
                return None
            self._forget_known(begun)
            self._late.add(len(self._starts))
            self._ahead.discard(len(self._starts))
            self._starts.append(begun)
        return self._starts[index]

    def _next_start(self) -> int | None:
        if len(self._places) < self._count:
            self._places.append(len(self._starts))
            return 0
        ended = [(self._end(each), place) for place, each in enumerate(self._places) if each in self._durations]
        if not ended:
            return None
        end, place = min(ended)
        if any(self._starts[each] + self._survived.get(each, 0) < end for each in self.running):
            return None
        self._places[place] = len(self._starts)
        return end

    @property
    def running(self) -> list[int]:
        """Indices of running trials."""
        return [each for each in self._places if each not in self._durations]

    def unknown(self, index: int) -> Set[int]:
        """Return the indices of earlier or simultaneous trials whose results this one must not know."""
        start = self._starts[index]
        return self._ahead | {each for each in self._late if each != index and not self._is_known(each, start)}

    def _is_known(self, index: int, tick: int) -> bool:
        if index not in self._durations:
            return False
        end = self._end(index)
        # A failure before the first epoch is not known at the trial's start tick.
        return end < tick or (end == tick and self._durations[index] > 0)

    def _end(self, index: int) -> int:
        return self._starts[index] + self._durations[index]

    def _forget_known(self, tick: int) -> None:
        oldest = min([tick, *(self._starts[each] for each in self.running if each < len(self._starts))])
        self._late = {each for each in self._late if not self._is_known(each, oldest)}


class SearchFeed(StudyFeed):
    """Hands out the trials of an arm's search, up to a total that includes the trials of earlier runs.

    Which results a trial is proposed and pruned by follows from a `TrialClock` with `most_at_once` places. So the
    trials are the same with any engine, width and number of processes. While other processes train trials of the
    study, without `most_at_once`, or if it does not wait, a trial knows whatever has ended.

    Args beside those of `StudyFeed`:
        total: Total number of trials of the study.
        seed: Base of the trials' seeds.
        timeout: Seconds after the first `ask` in which trials can start; None for no limit.
        retry_failed: Whether to free the keys of trials that failed before, except diverged ones.
        max_epochs: Epochs of a trial that is not pruned.
        waits: Whether proposals wait for the results that the clock lets them know.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        *,
        total: int,
        seed: int,
        cancelled: Callable[[], bool],
        most_at_once: int | None = None,
        timeout: float | None = None,
        retry_failed: bool = False,
        max_epochs: int | None = None,
        waits: bool = True,
    ) -> None:
        self._seed, self._timeout, self._max_epochs = seed, timeout, max_epochs
        self._clock = TrialClock(most_at_once) if most_at_once and waits else None
        self.is_repeatable = True
        """False once trials of other processes have a part in what these are proposed by."""
        super().__init__(store, space, [(index,) for index in range(total)], cancelled, most_at_once)
        self._began: float | None = None
        self._failure: RunError | None = None
        self._healthy: set[str] = set()
        """Keys of open trials with a finite epoch. Of many open trials, diverging ones end first."""
        if retry_failed:
            release_invalid(store, lambda result: not may_succeed(result))
        self._note_ended(store.results())
        self._others = store.ended_elsewhere
        """How many trials other processes had ended by then; the clock does not hear of later ones."""

    def ask(self, count: int) -> list[TrialSpec]:
        """Start up to `count` trials and return them; fewer if the study has reached its total or its timeout.

        Raises:
            RunError: The first trials of the study all failed for the same reason.
        """
        if self._failure:
            raise self._failure
        if self._began is None:
            self._began = time.monotonic()  # the first trials start however short the timeout is
        elif self._timeout is not None and time.monotonic() - self._began > self._timeout:
            self.held = False
            return []
        return super().ask(count)

    def point(self, trial_key: TrialKey) -> Params:
        """Return the parameters of an interrupted trial with this key, or a first point of the space, or nothing."""
        first = dict(enumerate(self.space.first_points))
        return self.store.left(trial_key) or first.get(trial_key[0], {})

    def sampler_seed(self, trial_key: TrialKey) -> int:
        """Return a seed per trial key, so that a continued study proposes the same trials as an uninterrupted one."""
        return derived_seed(self._seed, "sampler", *trial_key)

    def seed(self, trial: FrozenTrial) -> int:
        """Return the seed of the trial's index, which is the same in every arm, so that arms are paired."""
        return trial_seed(self._seed, trial.user_attrs["index"])

    def _free(self, count: int) -> list[TrialKey]:
        free = super()._free(count)
        self.held = False
        clock = self._clock
        if clock is None or self._is_shared():
            return free
        # If nothing trains here, the first trial has nothing to wait for; the second may have to wait for the first.
        ready = [*takewhile(lambda key: clock.start(key[0]) is not None, free)]
        if not ready and not self.store.is_training:
            ready = free[:1]
        self.held = len(ready) < len(free)
        return ready

    def _is_shared(self) -> bool:
        """Return whether other processes train trials of the study; if so, stop waiting for the clock."""
        if self._clock is not None and (self.store.has_company or self.store.ended_elsewhere > self._others):
            self._clock, self.is_repeatable = None, False
        return self._clock is None

    def unknown(self, trial_key: TrialKey) -> Iterable[int]:
        """Return the numbers of the trials that have not ended by the clock when this one starts."""
        if self._clock is None or self._clock.start(trial_key[0]) is None:
            return ()
        holders = self.store.claims.holders
        return (holders[index,] for index in self._clock.unknown(trial_key[0]) if (index,) in holders)

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Report epochs; return for each trial whether it is to be pruned."""
        self._healthy |= {spec.key for spec, metrics in reports if math.isfinite(metrics.objective)}
        unknown = {spec.number: frozenset(self.unknown((self._index(spec.number),))) for spec, _ in reports}
        prunes = self.store.report(reports, unknown)
        for (spec, metrics), prune in zip(reports, prunes, strict=True):
            if self._clock is not None and not prune and metrics.epoch + 1 != self._max_epochs:
                self._clock.survive(self._index(spec.number), metrics.epoch + 1)
        return prunes

    def _index(self, number: int) -> int:
        return self.store.seen.get(number).user_attrs["index"]

    def _note_ended(self, results: Iterable[TrialResult]) -> None:
        for result in results:
            if self._clock is not None and not result.interrupted:
                self._clock.end(self._index(result.spec.number), self._epochs(result))

    def _epochs(self, result: TrialResult) -> int:
        """Return the number of epochs of a trial, including one in which it failed or before which it stopped."""
        took = result.curve[-1].epoch + 1 if result.curve else 0
        is_whole = result.state == "PRUNED" or result.reason.startswith(DIVERGED) or took in (0, self._max_epochs)
        return took if is_whole else took + 1

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Record results. If all trials failed for the same reason, the next `ask` raises."""
        super().tell(results)
        self._note_ended(results)
        self._healthy -= {result.spec.key for result in results}
        if not self._healthy and self.store.all_failed:
            self._failure = common_failure(self.store.results())
