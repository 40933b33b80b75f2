"""Tracking, progress and Ctrl-C around the training of trials."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.experiment.stop_deadline import ends_in_time
from dropsearch.report import Progress
from dropsearch.tracking import Tracker
from dropsearch.training.protocols import Feed

STOPPING = b"stopping when the current step has ended; Ctrl-C again stops at once\n"


class TrackedFeed:
    """A feed whose trials are tracked and counted.

    Args:
        feed: The feed.
        tracker: The tracker.
        progress: The progress.
        elsewhere: Returns the number of trials that other processes have ended since the start.
    """

    def __init__(
        self, feed: Feed, tracker: Tracker, progress: Progress, elsewhere: Callable[[], int] = lambda: 0
    ) -> None:
        self._feed, self._tracker, self._progress, self._elsewhere = feed, tracker, progress, elsewhere
        self.most_at_once = feed.most_at_once
        self._has_begun = False

    @property
    def held(self) -> bool:
        """Whether to ask again later."""
        return self._feed.held

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials, and count trials ended by other processes."""
        specs = self._feed.ask(count)
        if specs and not self._has_begun:  # before, workers started: no part of the time that a trial takes
            self._has_begun = True
            self._progress.skip_wait()
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

    def cancelled(self) -> bool:
        """Return whether to stop."""
        return self._feed.cancelled()


class Interruption:
    """Records requests to stop: after the first, the run ends cleanly; after the second, it ends immediately."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        """Return whether to stop."""
        return self.requested

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle Ctrl-C and SIGTERM as requests to stop within the context; only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with ends_in_time():
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        with suppress(OSError):  # print is not reentrant
            os.write(2, STOPPING)
