"""What a view of a run shows: its state at one moment, in numbers and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dropsearch.report.progress.state import RunState

WORK = {
    "search": "each arm tries settings",
    "confirm": "the best settings of each arm are retrained on fresh seeds",
    "single sites": "winners are retrained with the rate of one site changed",
    "test": "the winners are measured on the test set, once",
    "compare": "the arms are compared, and the best model is kept",
    "evidence": "what dropout does in the winners is measured; evidence=off leaves it out",
    "report": "figures and reports are written",
    "tracking": "the tracker writes its last entries",
}
"""What happens in a stage, by its name."""
TRAINED = ("trials", "retrainings")
"""Units of training stages, in the search and after it."""
SETTLED_SECONDS = 8.0
"""Seconds after which the total time is shown even if no trial has ended."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one moment."""

    stage: str
    state: RunState
    done: int
    """Units of the stage that this invocation has finished."""
    total: int
    unit: str
    """Name of the units, in the plural; empty if nothing is counted."""
    hint: str
    per_minute: float
    """Units per minute of this stage; 0 before the first one."""
    share: float
    """Elapsed share of the run's time, in [0, 1]."""
    left: float | None
    """Remaining seconds of all stages; None if unknown."""
    parts: dict[str, float | None]
    """Remaining seconds by stage."""
    elapsed: float
    ending: str = ""
    """How the run ended; empty while it is running."""

    @property
    def work(self) -> str:
        """What happens in the stage, in at most 80 characters where there is no hint; may be empty."""
        repeated = "the search is repeated with other seeds" if self.stage.startswith("repeat ") else ""
        return ", ".join(filter(None, (WORK.get(self.stage, repeated), self.hint)))

    @property
    def trains(self) -> bool:
        """Whether the stage trains trials."""
        return self.unit in TRAINED

    @property
    def is_measured(self) -> bool:
        """Whether enough is done for a useful estimate of the whole run."""
        return self.done > 0 or self.elapsed > SETTLED_SECONDS

    @property
    def best(self) -> tuple[float, str] | None:
        """The best value of the search so far and its arm."""
        found = [(arm.best.objective, name) for name, arm in self.state.arms.items() if arm.best]
        return min(found, default=None)


class View:
    """Shows a run."""

    every: float
    """Maximum number of seconds between updates."""
    _shows_estimate = False

    def begin(self, now: Snapshot) -> None:
        """Show the start of a stage."""
        self.draw(now)

    def draw(self, now: Snapshot) -> None:
        """Show the progress."""
        raise NotImplementedError

    def note(self, line: str) -> None:
        """Show a line in addition to the progress."""

    def close(self, now: Snapshot) -> None:
        """Show how the run ended."""

    def new_estimate(self, now: Snapshot) -> str:
        """Return how long the run takes in all, once, when it is known; else an empty string."""
        estimate = in_all(now.parts) if now.is_measured and not self._shows_estimate else ""
        self._shows_estimate = self._shows_estimate or bool(estimate)
        return estimate


def duration(seconds: float) -> str:
    """Return a duration in words: ``40 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def in_all(parts: dict[str, float | None]) -> str:
    """Return the total duration of a run and by stage; empty if unknown.

    Example:
        >>> in_all({"search": 60.0, "confirm": 120.0})
        'about 3 min in all: search 60 s, confirm 2 min'
    """
    known: Sequence[tuple[str, float]] = [(name, each) for name, each in parts.items() if each is not None]
    if len(known) != len(parts) or not known:
        return ""
    shown = ", ".join(f"{name} {duration(each)}" for name, each in known if each >= 0.5)
    return f"about {duration(sum(each for _, each in known))} in all: {shown}"
