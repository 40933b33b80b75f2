"""How long a run still takes: one estimate over all of its stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

TRUST = 0.02
"""The share of a stage that must be done before its measured pace counts as much as the pace expected before."""
MOST_SHARE = 0.99
"""The largest share of a run that is shown as done while work remains."""


@dataclass
class Stage:
    """A part of a run: how much work it is, in units of its own, and how long a unit takes."""

    name: str
    units: float
    """Work of this invocation, done and left; what an earlier run did is not in it."""
    pace: float | None = None
    """Expected seconds a unit; None if unknown before something is measured."""
    like: str = ""
    """The stage whose measured pace is expected where `pace` is None."""
    ratio: float = 1.0
    """How many times as long a unit takes as one of the stage `like`."""
    done: float = 0.0
    spent: float = 0.0
    """Seconds until the last unit was done."""


class Forecast:
    """The stages of a run in their order, and the time that each of them still takes.

    A stage is measured while it runs: its pace becomes the measured one as its units are done. A stage that has not
    begun takes its own expected pace, or that of a stage like it.

    Args:
        stages: The parts of the run.
        clock: Seconds that rise.
    """

    def __init__(self, stages: Iterable[Stage], clock: Callable[[], float] = time.monotonic) -> None:
        self.stages = {stage.name: stage for stage in stages}
        self._clock = clock
        self._started = clock()
        self._finished: set[str] = set()
        self._current: Stage | None = None
        self._last = self._started

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._started

    def begin(self, name: str, units: float | None = None) -> None:
        """Begin a stage; the one before it is finished, however much was expected of it.

        Args:
            name: Of the stage; one that is not known yet is added.
            units: Its work, where that is known better by now.
        """
        self._settle()
        self._current = self.stages.setdefault(name, Stage(name, 0.0))
        self._finished.discard(name)
        if units is not None:
            self._current.units = self._current.done + units

    def expect(self, units: float) -> None:
        """Set the work of the current stage, done and left."""
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

    def finish(self) -> None:
        """End the run: nothing is left."""
        self._settle()
        self._finished = set(self.stages)

    def left(self) -> float | None:
        """Return the seconds that the run still takes; None if a stage with work has no known pace yet."""
        parts = self.by_stage()
        known = [seconds for seconds in parts.values() if seconds is not None]
        return sum(known) if len(known) == len(parts) else None

    def by_stage(self) -> dict[str, float | None]:
        """Return the seconds that each stage still takes, in order; stages that are finished are left out."""
        return {name: self._left(stage) for name, stage in self.stages.items() if name not in self._finished}

    def share(self) -> float:
        """Return how much of the run's time is over, in [0, 1]; 1 only when it is finished, 0 if unknown."""
        if len(self._finished) == len(self.stages):
            return 1.0
        left = self.left()
        if left is None:
            return 0.0
        whole = self.elapsed + left
        return min(self.elapsed / whole, MOST_SHARE) if whole > 0 else 0.0

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
        if waited <= pace:
            return remaining * pace - waited
        # A unit that takes longer than those before it takes half as long again as it has taken so far.
        return (remaining - min(remaining, 1.0)) * pace + waited / 2

    def pace(self, stage: Stage) -> float | None:
        """Return the seconds a unit of a stage, from what was measured and what was expected; None if unknown."""
        expected = stage.pace
        if expected is None and stage.like:
            other = self.stages.get(stage.like)
            found = self.pace(other) if other is not None else None
            expected = None if found is None else found * stage.ratio
        if not stage.done:
            return expected
        if expected is None:
            return stage.spent / stage.done
        weight = TRUST * stage.units
        return (expected * weight + stage.spent) / (weight + stage.done)
