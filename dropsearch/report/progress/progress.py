"""Progress of a run: it counts what happens, and shows it in every view, at least once a second."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from dropsearch.core.records import EpochMetrics, Monitor, TrialResult, TrialSpec
from dropsearch.report.progress.forecast import Forecast
from dropsearch.report.progress.state import RunState

TRAINED = ("trials", "retrainings")
"""What is counted in stages that train, in the search and after it."""
SETTLED_SECONDS = 8.0
"""After so long the time of the whole run is told, though no trial has ended."""
TICK = 1.0
"""Seconds between two looks at whether a view is due."""


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment."""

    stage: str
    state: RunState
    done: int
    """Units of the stage that this invocation has done."""
    total: int
    unit: str
    """What is counted, in the plural; empty where nothing is."""
    hint: str
    per_minute: float
    """Units done in a minute of this stage; 0 before the first one."""
    share: float
    """How much of the run's time is over, in [0, 1]."""
    left: float | None
    """Seconds that the run still takes, all stages; None if unknown yet."""
    parts: dict[str, float | None]
    """The same by stage."""
    elapsed: float
    ending: str = ""
    """How the run ended; empty while it works."""

    @property
    def trains(self) -> bool:
        """Whether the stage trains trials."""
        return self.unit in TRAINED

    @property
    def is_measured(self) -> bool:
        """Whether enough was done for an estimate of the whole run that is worth telling."""
        return self.done > 0 or self.elapsed > SETTLED_SECONDS

    @property
    def best(self) -> tuple[float, str] | None:
        """The best value of the search so far and its arm."""
        found = [(arm.best.objective, name) for name, arm in self.state.arms.items() if arm.best]
        return min(found, default=None)


class View(Protocol):
    """Shows a run."""

    every: float
    """Seconds between two drawings where nothing else calls for one."""

    def begin(self, now: Snapshot) -> None:
        """Show that a stage begins."""
        ...

    def draw(self, now: Snapshot) -> None:
        """Show how far the run is."""
        ...

    def note(self, line: str) -> None:
        """Show a line beside the progress."""
        ...

    def close(self, now: Snapshot) -> None:
        """Show how the run ended."""
        ...


class Progress:
    """Counts the trials, models and files of a run, and shows them.

    Args:
        forecast: The stages of the run.
        state: What is known of its trials.
        views: What shows it.
        clock: Seconds that rise.
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
        self._began = clock()
        self._drawn = [-math.inf for _ in self._views]
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None
        self._closed = False

    @property
    def monitor(self) -> Monitor:
        """What trials are chosen by."""
        return self.state.monitor

    def start(self) -> None:
        """Draw from a thread as well, so that views go on while nothing ends."""
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._ticker.start()

    def train(self, stage: str, trials: int, *, is_search: bool = False) -> None:
        """Begin a stage in which at most this many trials are trained."""
        with self._lock:
            self.state.begin(is_search)
            self._begin(stage, trials, TRAINED[0 if is_search else 1], "", trials * self.state.expected)

    def begin(self, stage: str, units: int = 0, unit: str = "", hint: str = "") -> None:
        """Begin a stage of counted work.

        Args:
            stage: Its name.
            units: How much there is to do; 0 where it is not counted.
            unit: What is counted, in the plural.
            hint: What to say beside it.
        """
        with self._lock:
            self._begin(stage, units, unit, hint, float(units) or None)

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Count an epoch of a trial."""
        with self._lock:
            self.state.epoch(spec, metrics)
            self.forecast.advance()
            self._expect()

    def end(self, result: TrialResult) -> None:
        """Count a trial that ended, however it ended."""
        with self._lock:
            self.state.end(result)
            self._count()
            self._expect()
            self._draw()

    def elsewhere(self, trials: int) -> None:
        """Take in how many trials other processes have ended since this stage began; they count as done."""
        with self._lock:
            new, self._elsewhere = trials - self._elsewhere, trials
            if new > 0:
                self._count(new)
                self._expect()
                self._draw()

    def step(self, units: int = 1) -> None:
        """Count work that is done in a stage without trials."""
        with self._lock:
            self.forecast.advance(units)
            self._count(units)
            self._draw()

    def note(self, line: str) -> None:
        """Show a line beside the progress."""
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
        """Return the run as it is now."""
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
        self._done, self._elsewhere, self._began = 0, 0, self._clock()
        for view in self._views:
            view.begin(self.snapshot())

    def _count(self, units: int = 1) -> None:
        self._done += units
        self._total = max(self._total, self._done)

    def _expect(self) -> None:
        """Say how many epochs the stage has by what is known of its trials now."""
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
    """Return how long a run takes in all and by stage; empty if that is not known.

    Example:
        >>> in_all({"search": 60.0, "confirm": 120.0})
        'about 3 min in all: search 60 s, confirm 2 min'
    """
    known: Sequence[tuple[str, float]] = [(name, each) for name, each in parts.items() if each is not None]
    if len(known) != len(parts) or not known:
        return ""
    shown = ", ".join(f"{name} {duration(each)}" for name, each in known if each >= 0.5)
    return f"about {duration(sum(each for _, each in known))} in all: {shown}"
