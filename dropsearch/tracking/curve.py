"""The curve of a running trial, as far as it is not written yet."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from dropsearch.records import EpochMetrics
from dropsearch.tracking.entries import now

TimedPoints = list[tuple[EpochMetrics, int]]
"""Points with the times at which they came, in milliseconds."""


@dataclass
class Curve:
    """Collects a trial's points until some seconds' worth has come."""

    since: float = field(default_factory=time.monotonic)
    flushed: float = field(default_factory=time.monotonic)
    epochs: int = 0
    waiting: TimedPoints = field(default_factory=list)

    def with_point(self, metrics: EpochMetrics, flush_seconds: float) -> tuple[TimedPoints, int] | None:
        """Add a point; return all that wait, and when the trial began in milliseconds, if they have waited so long."""
        self.waiting.append((metrics, now()))
        self.epochs += 1
        at = time.monotonic()
        if at - self.flushed < flush_seconds or self.epochs < 2:
            return None
        # The first point came when one epoch was over; the pace since then says how long that epoch took.
        lasted = (at - self.since) * self.epochs / (self.epochs - 1)
        points, self.waiting, self.flushed = self.waiting, [], at
        return points, now() - int(1000 * lasted)
