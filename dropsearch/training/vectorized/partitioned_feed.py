"""Trials that wait: for an array of their own program, or to begin again.

Rows of one array run one program. What else was searched decides it (a width changes every shape), but for what the
optimisers of rows take row by row. So trials fall into partitions, and an array holds those of one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

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
        while self._take(self.places - len(self._waiting)):
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
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._feed.tell([TrialResult(spec, "FAIL", (), 0.0, INTERRUPTED) for spec in waiting])

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials of the running partition; fewer where the feed has none, or too many others wait."""
        found = self._leave_with(count)
        while len(found) < count:
            if not self._take(min(count - len(found), self.places - len(self._waiting))):
                break
            found += self._leave_with(count - len(found))
        return found

    def _leave_with(self, count: int) -> list[TrialSpec]:
        """Hand out up to `count` of the waiting trials that belong to the running partition."""
        leaving = [spec for spec in self._waiting if self._running in (None, partition(spec))][:count]
        keys = {spec.key for spec in leaving}
        self._waiting = [spec for spec in self._waiting if spec.key not in keys]
        self._open |= {spec.key: spec for spec in leaving}
        return leaving

    def _take(self, count: int) -> int:
        """Ask the feed for more trials, which wait, but for no more than may be open; return how many there were."""
        if self.most_at_once is not None:
            count = min(count, self.most_at_once - len(self._open) - len(self._waiting))
        if count < 1 or self._feed.cancelled():
            return 0
        taken = self._feed.ask(count)
        self._waiting += taken
        return len(taken)

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Pass epochs on."""
        return self._feed.report(reports)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Pass results on."""
        for result in results:
            self._open.pop(result.spec.key, None)
        self._feed.tell(results)

    def cancelled(self) -> bool:
        """Return whether to stop."""
        return self._feed.cancelled()
