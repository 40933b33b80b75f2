"""Estimate of the remaining time over all stages of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

TRUST = 0.02
"""Share of a stage after which its measured pace weighs as much as its expected pace."""
MOST_SHARE = 0.99
"""Largest share shown as done while work remains."""


@dataclass
class Stage:
    """A stage of a run: its amount of work in units, and the seconds per unit."""

    name: str
    units: float
    """Work of this invocation, done and remaining, without that of earlier runs."""
    pace: float | None = None
    """Expected seconds per unit; None if unknown before a measurement."""
    like: str = ""
    """The stage whose measured pace is expected if `pace` is None."""
    done: float = 0.0
    spent: float = 0.0
    """Seconds from the start to the last finished unit."""


class Forecast:
    """The stages of a run in order, and their remaining time.

    The pace of a running stage moves from the expected to the measured one as units finish. A stage that has not
    started uses its expected pace, or that of a similar stage.
    """

    def __init__(self, stages: Iterable[Stage], clock: Callable[[], float] = time.monotonic) -> None:
        self.stages = {stage.name: stage for stage in stages}
        self._clock = clock
        self._started = clock()
        self._finished: set[str] = set()
        self._current: Stage | None = None
        self._last = self._started
        self._share = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._started

    def begin(self, name: str, units: float | None = None) -> None:
        """Start a stage and finish the one before it.

        Args:
            units: Its work, if it is now known more exactly.
        """
        self._settle()
        self._current = self.stages.setdefault(name, Stage(name, 0.0))
        self._finished.discard(name)
        if units is not None:
            self._current.units = self._current.done + units

    def expect(self, units: float) -> None:
        """Set the work of the current stage, done and remaining."""
        if self._current is not None:
            self._current.units = max(units, self._current.done)

    def advance(self, units: float = 1.0) -> None:
        """Count work of the current stage as done."""
        stage, now = self._current, self._clock()
        if stage is None:
            return
        stage.done += units
        stage.units = max(stage.units, stage.done)
        stage.spent, self._last = stage.spent + now - self._last, now

    def skip_wait(self) -> None:
        """Leave the time since the last unit out of the pace of the current stage."""
        self._last = self._clock()

    def finish(self) -> None:
        """End the run."""
        self._settle()
        self._finished = set(self.stages)

    def left(self) -> float | None:
        """Return the remaining seconds of the run; None if the pace of a stage with work is unknown."""
        parts = self.by_stage()
        known = [seconds for seconds in parts.values() if seconds is not None]
        return sum(known) if len(known) == len(parts) else None

    def by_stage(self) -> dict[str, float | None]:
        """Return the remaining seconds of each unfinished stage, in order."""
        return {name: self._left(stage) for name, stage in self.stages.items() if name not in self._finished}

    def share(self) -> float:
        """Return the elapsed share of the run's time, in [0, 1]; 1 only after the end, 0 if unknown.

        It does not fall: if the rest takes longer than expected, it stands until the elapsed time has caught up.
        """
        if len(self._finished) == len(self.stages):
            return 1.0
        left = self.left()
        whole = 0.0 if left is None else self.elapsed + left
        if whole > 0:
            self._share = max(self._share, min(self.elapsed / whole, MOST_SHARE))
        return self._share

    def _settle(self) -> None:
        if self._current is not None:
            now = self._clock()
            self._current.spent, self._last = self._current.spent + now - self._last, now
            self._finished.add(self._current.name)
            self._current = None
        self._last = self._clock()

    def _left(self, stage: Stage) -> float | None:
        pace, remaining = self.pace(stage), stage.units - stage.done
        if remaining <= 0:
            return 0.0
        if pace is None:
            return None
        waited = self._clock() - self._last if stage is self._current else 0.0
        unit = min(remaining, 1.0)
        # A unit that takes longer than expected is expected to take a quarter as long again.
        return (remaining - unit) * pace + max(unit * pace - waited, waited / 4)

    def pace(self, stage: Stage) -> float | None:
        """Return the seconds per unit of a stage from measured and expected pace; None if unknown."""
        expected = stage.pace
        if expected is None and stage.like:
            other = self.stages.get(stage.like)
            expected = self.pace(other) if other is not None else None
        if not stage.done:
            return expected
        if expected is None:
            return stage.spent / stage.done
        weight = TRUST * stage.units
        return (expected * weight + stage.spent) / (weight + stage.done)
