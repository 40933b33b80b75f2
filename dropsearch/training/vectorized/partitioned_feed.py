"""Trials that wait: for an array of their own program, or to begin again.

Rows of one array run one program. What else was searched decides it (a width changes every shape), but for what the
optimisers of rows take row by row. So trials fall into partitions, and an array holds those of one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from dropsearch.core.records import INTERRUPTED, EpochMetrics, TrialResult, TrialSpec
from dropsearch.training.protocols import Feed

BY_ROW = ("optimizer.betas", "optimizer.momentum", "optimizer.nesterov", "optimizer.schedule")
"""What rows of one array may differ in, like learning rate and weight decay: each has an optimiser of its own."""


def partition(spec: TrialSpec) -> str:
    """Return what all rows of a trial's array must have in common: all that else was searched, but for `BY_ROW`."""
    return json.dumps({key: value for key, value in spec.hyperparameters.items() if key not in BY_ROW}, sort_keys=True)


class PartitionedFeed:
    """A feed that hands out the trials of one partition at a time; those of others wait, and those that begin again.

    A feed's trials come in an order that the sampler chose, so which partition comes next cannot be asked for. At
    most `places` trials wait: the sampler learns nothing from them.

    Args:
        feed: Where trials come from.
        places: How many trials may wait.
    """

    def __init__(self, feed: Feed, places: int) -> None:
        self._feed, self.places = feed, places
        self._waiting: list[TrialSpec] = []
        self._open: dict[str, TrialSpec] = {}
        self._running: str | None = None
        self.most_at_once = feed.most_at_once

    def begin(self) -> bool:
        """Let the largest partition among the trials that are to be had now come next; return whether there is one."""
        self._running = None
        while len(self._waiting) < self.places and self._take() is not None:
            pass
        sizes = Counter(partition(spec) for spec in self._waiting)
        self._running = max(sizes, key=sizes.__getitem__, default=None)
        return bool(sizes)

    def begin_again(self) -> None:
        """Take back the trials that were handed out and not told."""
        self._waiting[:0] = self._open.values()
        self._open.clear()

    def admit_all(self) -> None:
        """Hand out trials of any partition from now on: they train alone."""
        self._running = None

    def leave(self) -> None:
        """Tell the trials that wait as interrupted, for nobody will train them."""
        while self._waiting:
            self._feed.tell(TrialResult(self._waiting.pop(0), "FAIL", (), 0.0, INTERRUPTED))

    def ask(self) -> TrialSpec | None:
        """Return the next trial of the running partition; None where the feed has none, or too many others wait."""
        while (spec := self._next(self._waiting)) is None:
            if len(self._waiting) >= self.places or self._take() is None:
                return None
        self._waiting.remove(spec)
        self._open[spec.key] = spec
        return spec

    def _next(self, among: Iterable[TrialSpec]) -> TrialSpec | None:
        return next((spec for spec in among if self._running in (None, partition(spec))), None)

    def _take(self) -> TrialSpec | None:
        """Ask the feed for one more trial, which waits; None where it has none, or as many are open as may be."""
        begun = len(self._open) + len(self._waiting)
        if self._feed.cancelled() or (self.most_at_once is not None and begun >= self.most_at_once):
            return None
        spec = self._feed.ask()
        if spec is not None:
            self._waiting.append(spec)
        return spec

    def report(self, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        """Pass an epoch on."""
        return self._feed.report(spec, metrics)

    def tell(self, result: TrialResult) -> None:
        """Pass a result on."""
        self._open.pop(result.spec.key, None)
        self._feed.tell(result)

    def cancelled(self) -> bool:
        """Return whether to stop."""
        return self._feed.cancelled()
