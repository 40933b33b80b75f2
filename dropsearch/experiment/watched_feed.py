"""A feed whose trials are tracked and counted, between engine and study."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.report.progress import Progress
from dropsearch.tracking import Tracker
from dropsearch.training.feeds import ForwardingFeed
from dropsearch.training.protocols import Feed


class TrackedFeed(ForwardingFeed):
    """A feed whose trials are tracked and counted.

    Args:
        elsewhere: Returns results of trials that other processes have ended since its last call.
    """

    def __init__(
        self, feed: Feed, tracker: Tracker, progress: Progress, elsewhere: Callable[[], Sequence[TrialResult]] = tuple
    ) -> None:
        super().__init__(feed)
        self._tracker, self._progress, self._elsewhere = tracker, progress, elsewhere
        self._has_begun = False

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials, and count trials ended by other processes."""
        specs = self._feed.ask(count)
        if specs and not self._has_begun:  # before, workers started: no part of the time that a trial takes
            self._has_begun = True
            self._progress.skip_wait()
        self._progress.asked(specs)
        self._progress.elsewhere(self._elsewhere())
        return specs

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Forward epochs."""
        for spec, metrics in reports:
            self._tracker.epoch(spec, metrics)
            self._progress.epoch(spec, metrics)
        return self._feed.report(reports)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Forward results, first to the study, since stored results can be tracked later but not vice versa."""
        self._feed.tell(results)
        for result in results:
            # Interrupted trials are trained again as new trials.
            if not result.interrupted:
                self._tracker.end(result)
                self._progress.end(result)
