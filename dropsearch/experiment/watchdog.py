"""A line on the terminal where no trial has got further for long: which trials hang, and where."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.training.protocols import Feed

STALL, LOOK = 300.0, 5.0
"""Seconds without an epoch of any trial after which the line is printed, and between two looks. It is printed again
after twice that time, and so on."""
MOST_NAMED = 4
"""How many trials the line names."""


class Watchdog:
    """What trials are doing, as it is heard of them."""

    def __init__(self) -> None:
        self._doing: dict[str, str] = {}
        self._heard, self._patience = time.monotonic(), STALL

    def hear(self, doing: dict[str, str], ended: Sequence[TrialResult] = ()) -> None:
        """Take in what trials are doing now, by their keys, and which have ended."""
        self._doing = {**self._doing, **doing}
        for result in ended:
            self._doing.pop(result.spec.key, None)
        self._heard, self._patience = time.monotonic(), STALL

    def stalled(self) -> str:
        """Return the line to print, empty where trials get further or none trains."""
        waited, doing = time.monotonic() - self._heard, dict(self._doing)
        if not doing or waited < self._patience:
            return ""
        self._patience *= 2
        named = ", ".join(f"{key} ({what})" for key, what in list(doing.items())[:MOST_NAMED])
        more = f" and {len(doing) - MOST_NAMED} more" if len(doing) > MOST_NAMED else ""
        return (
            f"no trial has ended an epoch for {waited:.0f} s: {named}{more}; epochs may be long, or a data loader or a "
            "step hangs: Ctrl-C stops the run, and the same command continues"
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Print the line where it is due while the context lasts."""
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(LOOK):
                if line := self.stalled():
                    print(line, file=sys.stderr, flush=True)

        threading.Thread(target=look, name="dropsearch-watchdog", daemon=True).start()
        try:
            yield
        finally:
            stop.set()


class HeardFeed:
    """A feed of which a watchdog hears.

    Args:
        feed: The feed.
        watchdog: The watchdog.
    """

    def __init__(self, feed: Feed, watchdog: Watchdog) -> None:
        self._feed, self._watchdog = feed, watchdog
        self.most_at_once = feed.most_at_once

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials."""
        specs = self._feed.ask(count)
        self._watchdog.hear({spec.key: "before its first epoch ended" for spec in specs})
        return specs

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Pass epochs on."""
        self._watchdog.hear({spec.key: f"after epoch {metrics.epoch + 1}" for spec, metrics in reports})
        return self._feed.report(reports)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Pass results on."""
        self._watchdog.hear({}, results)
        self._feed.tell(results)

    def cancelled(self) -> bool:
        """Return whether to stop."""
        return self._feed.cancelled()
