"""Progress of a run: counts events and updates every view at least once a second."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.report.progress.forecast import Forecast
from dropsearch.report.progress.state import RunState
from dropsearch.report.progress.view import TRAINED, Snapshot, View

TICK = 1.0
"""Seconds between checks whether a view is due."""


class Progress:
    """Counts the trials, models and files of a run, and shows them."""

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
        self._done = self._total = 0
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
            units: Number of units; 0 if they are not counted.
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

    def elsewhere(self, results: Sequence[TrialResult]) -> None:
        """Count trials that other processes ended; those of this stage count as done."""
        if not results:
            return
        with self._lock:
            self.state.known(results)
            if new := sum((each.spec.phase == "search") is (self._unit == TRAINED[0]) for each in results):
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
        """Show how the run ended; may be called twice."""
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
        self._done = 0
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
