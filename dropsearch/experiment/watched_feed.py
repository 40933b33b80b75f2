"""What happens around the training of trials: tracking, progress, and Ctrl-C."""

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
    """A feed whose trials are tracked and counted as they pass.

    Args:
        feed: The feed.
        tracker: What tracks the trials.
        progress: What counts them.
        elsewhere: Says how many trials other processes have ended since this one began.
    """

    def __init__(
        self, feed: Feed, tracker: Tracker, progress: Progress, elsewhere: Callable[[], int] = lambda: 0
    ) -> None:
        self._feed, self._tracker, self._progress, self._elsewhere = feed, tracker, progress, elsewhere
        self.most_at_once = feed.most_at_once

    @property
    def held(self) -> bool:
        """Whether to ask again later."""
        return self._feed.held

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials; what other processes ended is known by then, and counted."""
        specs = self._feed.ask(count)
        self._progress.elsewhere(self._elsewhere())
        return specs

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Pass epochs on."""
        for spec, metrics in reports:
            self._tracker.epoch(spec, metrics)
            self._progress.epoch(spec, metrics)
        return self._feed.report(reports)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Pass results on: to the study first, for what it holds can be tracked later, but not the reverse."""
        self._feed.tell(results)
        for result in results:
            # What was interrupted is trained again, as another trial.
            if not result.interrupted:
                self._tracker.end(result)
                self._progress.end(result)

    def cancelled(self) -> bool:
        """Return whether to stop."""
        return self._feed.cancelled()


class Interruption:
    """Whether the user wants to stop: asked once, the run ends cleanly; asked twice, it ends now."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        """Return whether to stop."""
        return self.requested

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as the wish to stop while the context lasts; only the main thread hears them."""
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
        with suppress(OSError):  # not by print, which this may interrupt
            os.write(2, STOPPING)
