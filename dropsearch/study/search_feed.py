"""The feed of an arm's search, whose trials follow from its seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

from optuna.trial import FrozenTrial

from dropsearch.core.errors import RunError
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.core.seeds import derived_seed, trial_seed
from dropsearch.study.feeds import DIVERGED, StudyFeed, common_failure, may_succeed, release_invalid
from dropsearch.study.search_space import Params, Space
from dropsearch.study.store import StudyStore
from dropsearch.study.trial_clock import TrialClock
from dropsearch.study.trial_entry import TrialKey


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
