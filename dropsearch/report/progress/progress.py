"""Progress of a run: counts events and updates every view at least once a second."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.report.progress.forecast import Forecast
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
TICK = 1.0
"""Seconds between checks whether a view is due."""


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


class Progress:
    """Counts the trials, models and files of a run, and shows them.

    Args:
        forecast: The stages of the run.
        state: The state of its trials.
        views: The views to update.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        forecast: Forecast | None = None,
        state: RunState | None = None,
        views: Iterable[View] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.forecast = Forecast((), clock) if forecast is None else forecast
        self.state = RunState(()) if state is None else state
        self._views, self._clock = tuple(views), clock
        self._stage, self._unit, self._hint = "", "", ""
        self._done = self._total = self._elsewhere = 0
        self._began = self._counted = clock()
        """When the stage began, later by the waits that are left out; and when its last unit ended."""
        self._drawn = [-math.inf for _ in self._views]
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """Start a thread that updates views while no trial ends."""
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._ticker.start()

    def train(self, stage: str, trials: int, *, is_search: bool = False) -> None:
        """Start a stage that trains at most this many trials."""
        with self._lock:
            self.state.begin(is_search)
            self._begin(stage, trials, TRAINED[0 if is_search else 1], "", trials * self.state.expected)

    def begin(self, stage: str, units: int = 0, unit: str = "", hint: str = "") -> None:
        """Start a stage.

        Args:
            stage: Its name.
            units: Number of units; 0 if they are not counted.
            unit: Name of the units, in the plural.
            hint: Additional text.
        """
        with self._lock:
            self._begin(stage, units, unit, hint, float(units) or None)

    def asked(self, specs: Iterable[TrialSpec]) -> None:
        """Count trials that begin."""
        with self._lock:
            for spec in specs:
                self.state.start(spec)

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Count an epoch of a trial."""
        with self._lock:
            self.state.epoch(spec, metrics)
            self.forecast.advance()
            self._expect()

    def end(self, result: TrialResult) -> None:
        """Count an ended trial, in any final state."""
        with self._lock:
            self.state.end(result)
            self._count()
            self._expect()
            self._draw()

    def elsewhere(self, trials: int) -> None:
        """Set the number of trials that other processes ended in this stage; they count as done."""
        with self._lock:
            new, self._elsewhere = trials - self._elsewhere, trials
            if new > 0:
                self._count(new)
                self._expect()
                self._draw()

    def step(self, units: int = 1) -> None:
        """Count finished units in a stage without trials."""
        with self._lock:
            self.forecast.advance(units)
            self._count(units)
            self._draw()

    def skip_wait(self) -> None:
        """Leave the wait until now out of the speed of the current stage."""
        with self._lock:
            self.forecast.skip_wait()
            now = self._clock()
            self._began, self._counted = self._began + now - self._counted, now

    def note(self, line: str) -> None:
        """Show a line in addition to the progress."""
        with self._lock:
            for view in self._views:
                view.note(line)

    def close(self, ending: str = "done") -> None:
        """Show how the run ended; may be called twice.

        Args:
            ending: done, stopped or failed.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._stop.set()
            if ending == "done":
                self.forecast.finish()
            for view in self._views:
                view.close(self.snapshot(ending))
        if self._ticker is not None and self._ticker is not threading.current_thread():
            self._ticker.join(TICK)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.close("stopped" if issubclass(kind, KeyboardInterrupt) else "failed")

    def snapshot(self, ending: str = "") -> Snapshot:
        """Return the current state of the run."""
        took = self._clock() - self._began
        return Snapshot(
            self._stage,
            self.state,
            self._done,
            self._total,
            self._unit,
            self._hint,
            60 * self._done / took if took > 0 else 0.0,
            self.forecast.share(),
            self.forecast.left(),
            self.forecast.by_stage(),
            self.forecast.elapsed,
            ending,
        )

    def _begin(self, stage: str, units: int, unit: str, hint: str, work: float | None) -> None:
        self.forecast.begin(stage, work)
        self._stage, self._total, self._unit, self._hint = stage, units, unit, hint
        self._done, self._elsewhere = 0, 0
        self._began = self._counted = self._clock()
        for view in self._views:
            view.begin(self.snapshot())

    def _count(self, units: int = 1) -> None:
        self._done, self._counted = self._done + units, self._clock()
        self._total = max(self._total, self._done)

    def _expect(self) -> None:
        """Update the expected number of epochs of the stage."""
        stage = self.forecast.stages.get(self._stage)
        if stage is not None:
            left = (self._total - self._done) * self.state.expected - self.state.open_epochs()
            self.forecast.expect(stage.done + max(left, 0.0))

    def _draw(self) -> None:
        now = self._clock()
        due = [index for index, view in enumerate(self._views) if now - self._drawn[index] >= view.every]
        if not due or self._closed:
            return
        snapshot = self.snapshot()
        for index in due:
            self._drawn[index] = now
            self._views[index].draw(snapshot)

    def _tick(self) -> None:
        while not self._stop.wait(TICK):
            with self._lock:
                self._draw()


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
