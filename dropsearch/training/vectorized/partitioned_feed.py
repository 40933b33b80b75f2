"""A feed that hands out the trials of one partition at a time.

Trials in the same stacked tensors run the same program. Searched hyperparameters such as a layer width change
that program, so trials with different values belong to different partitions. Optimizer options do not: each row has its
own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from dropsearch.core.records import INTERRUPTED, TrialResult, TrialSpec
from dropsearch.training.feeds import ForwardingFeed
from dropsearch.training.protocols import Feed

BY_ROW = ("optimizer.betas", "optimizer.momentum", "optimizer.nesterov", "optimizer.schedule")
"""Hyperparameters that may differ between rows, as learning rate and weight decay may."""


def partition(spec: TrialSpec) -> str:
    """Return the partition of a trial: its searched hyperparameters without those of `BY_ROW`, as JSON."""
    return json.dumps({key: value for key, value in spec.hyperparameters.items() if key not in BY_ROW}, sort_keys=True)


class PartitionedFeed(ForwardingFeed):
    """Wraps a feed and hands out the trials of one partition at a time; the others wait.

    The sampler determines the order of the trials, so a feed cannot be asked for a partition. At most `max_waiting`
    trials wait, since the sampler learns nothing from a waiting trial.
    """

    def __init__(self, feed: Feed, max_waiting: int) -> None:
        super().__init__(feed)
        self.max_waiting = max_waiting
        self._waiting: list[TrialSpec] = []
        self._open: dict[str, TrialSpec] = {}
        self._current: str | None = None
        """The partition whose trials are handed out; None for any."""

    def next_partition(self) -> bool:
        """Select the largest partition among the available trials; return False if no trial is left."""
        self._current = None
        while self._fetch(self.max_waiting - len(self._waiting)):
            pass
        sizes = Counter(partition(spec) for spec in self._waiting)
        self._current = max(sizes, key=sizes.__getitem__, default=None)
        return bool(sizes)

    def requeue_open(self) -> None:
        """Put open trials, which were handed out but have not ended, back into the queue."""
        self._waiting[:0] = self._open.values()
        self._open.clear()

    def admit_all(self) -> None:
        """Hand out trials of any partition from now on, for sequential training."""
        self._current = None

    def interrupt_waiting(self) -> None:
        """Record all waiting trials as interrupted."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._feed.tell([TrialResult(spec, "FAIL", (), 0.0, INTERRUPTED) for spec in waiting])

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials of the current partition.

        There are fewer than `count` if the feed is empty or `max_waiting` trials of other partitions wait.
        """
        specs = self._pop(count)
        while len(specs) < count:
            if not self._fetch(min(count - len(specs), self.max_waiting - len(self._waiting))):
                break
            specs += self._pop(count - len(specs))
        return specs

    def _pop(self, count: int) -> list[TrialSpec]:
        """Remove up to `count` trials of the current partition from the queue and return them."""
        popped = [spec for spec in self._waiting if self._current in (None, partition(spec))][:count]
        keys = {spec.key for spec in popped}
        self._waiting = [spec for spec in self._waiting if spec.key not in keys]
        self._open |= {spec.key: spec for spec in popped}
        return popped

    def _fetch(self, count: int) -> int:
        """Ask the feed for up to `count` more trials within `most_at_once`; return how many there were."""
        if self.most_at_once is not None:
            count = min(count, self.most_at_once - len(self._open) - len(self._waiting))
        if count < 1 or self._feed.cancelled():
            return 0
        fetched = self._feed.ask(count)
        self._waiting += fetched
        return len(fetched)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Forward results to the feed."""
        for result in results:
            self._open.pop(result.spec.key, None)
        self._feed.tell(results)
