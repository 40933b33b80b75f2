"""A tracker that gets ready while trials train already."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dropsearch.errors import InputError, first_cause
from dropsearch.records import EpochMetrics, Summary, TrialResult, TrialSpec
from dropsearch.tracking.address import Address, knock
from dropsearch.tracking.tracker import NullTracker, Tracker


class ReadyMeanwhile:
    """Passes everything on to a tracker that a thread of its own makes, connects and starts.

    To import MLflow and to make its tables takes three seconds. That is only done beside the training where nobody
    can say no any more: in a database file that is yet to be made, in a folder that can be written. What happens
    until the tracker is there waits for it, in order. Should it fail after all, the study goes on without it, and
    `problems` says why, and so does one line at once; the next run writes what is missing.
    """

    def __init__(self, make: Callable[[], Tracker], address: Address) -> None:
        self._make, self._address = make, address
        self._experiment = ""
        self._own_problems: list[str] = []
        self._waiting: list[Callable[[Tracker], object]] = []
        self._tracker: Tracker | None = None
        self._order = threading.Lock()
        """Held while calls are noted or passed on, so that none overtakes another."""
        self._thread = threading.Thread(target=self._get_ready, name="dropsearch-tracking-start", daemon=True)

    @property
    def place(self) -> Mapping[str, str]:
        """tracking_uri and experiment, known before the tracker is ready."""
        return {"tracking_uri": self._address.shown, "experiment": self._experiment}

    @property
    def info(self) -> Mapping[str, str]:
        """tracking_uri, experiment, experiment_id and run_id of the parent run; waits until they are known."""
        return self._ready().info

    @property
    def problems(self) -> Sequence[str]:
        """What could not be written, one line each."""
        return [*self._own_problems, *self._ready().problems]

    def connect(self, experiment: str) -> None:
        """See that the file can be made, and begin to make it.

        Raises:
            InputError: The folder cannot be written.
        """
        knock(self._address)
        self._experiment = experiment
        self._thread.start()

    def start(self, **given: Any) -> None:
        """Note what the parent run is opened with: see `Tracker.start`."""
        self._pass_on(lambda tracker: tracker.start(**given))

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Note one point of a running trial's curves."""
        self._pass_on(lambda tracker: tracker.epoch(spec, metrics))

    def end(self, result: TrialResult) -> None:
        """Write a trial that ended, whole; returns at once."""
        self._pass_on(lambda tracker: tracker.end(result))

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return those of the `TrialSpec.key` of this study that have no ended run yet."""
        return self._ready().missing(keys)

    def finish(
        self,
        summary: Summary,
        artifacts: Sequence[Path],
        model: Callable[[], Any] | None,
        example: Any | None,
    ) -> None:
        """Write what the study found, and close every run."""
        self._ready().finish(summary, artifacts, model, example)

    def close(self, status: Literal["KILLED", "FAILED"] = "FAILED") -> None:
        """Close every open run with that status; does nothing after `finish`."""
        if self._experiment:
            self._ready().close(status)

    def _pass_on(self, call: Callable[[Tracker], object]) -> None:
        with self._order:
            if self._tracker is None:
                self._waiting.append(call)
            else:
                self._tracker = self._attempt(partial(_called, call, self._tracker), self._tracker)

    def _get_ready(self) -> None:
        tracker = self._attempt(self._made)
        while True:
            with self._order:
                calls, self._waiting = self._waiting, []
                if not calls:
                    self._tracker = tracker
                    return
            for call in calls:
                tracker = self._attempt(partial(_called, call, tracker), tracker)

    def _made(self) -> Tracker:
        tracker = self._make()
        tracker.connect(self._experiment)
        return tracker

    def _attempt(self, step: Callable[[], Tracker], tracker: Tracker | None = None) -> Tracker:
        """Take a step; where it fails, say so at once, close the tracker that failed and go on without one."""
        try:
            return step()
        except InputError as error:
            problem = f"{error}; the study goes on without it"
        except BaseException as error:  # an import or a disk that fails must not end the training
            if not isinstance(error, Exception) and threading.current_thread() is not self._thread:
                raise  # the user or the system ends the run
            said = self._address.hide(first_cause(error))[:200]
            problem = f"MLflow cannot be used: {said}; the study goes on without it"
        self._own_problems.append(problem)
        print(f"tracking: {problem}", file=sys.stderr, flush=True)
        if tracker is not None:
            with suppress(Exception):  # it has failed already: what it can still close is closed
                tracker.close("FAILED")
        return NullTracker()

    def _ready(self) -> Tracker:
        self._thread.join()
        assert self._tracker is not None, "the thread ends when it is there"
        return self._tracker


def _called(call: Callable[[Tracker], object], tracker: Tracker) -> Tracker:
    call(tracker)
    return tracker
