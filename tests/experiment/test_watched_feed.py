"""What is tracked of a trial, and when."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dropsearch.core.errors import RunError
from dropsearch.core.records import INTERRUPTED, State, TrialResult, TrialSpec
from dropsearch.experiment.arm_runner import ArmRunner
from dropsearch.experiment.interruption import Interruption
from dropsearch.experiment.run_progress import TrackedFeed
from dropsearch.report.progress import Forecast, Progress, Stage
from dropsearch.tracking import Tracker


def sleep_interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)


class Study:
    """A feed that notes what it is told, and a tracker that does."""

    most_at_once = None

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.told: list[str] = []

    def tell(self, results: Sequence[TrialResult]) -> None:
        if self.error:
            raise self.error
        self.told.append("study")


class Noting(Tracker):
    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self.told = told

    def end(self, result: TrialResult) -> None:
        self.told.append("tracker")


def tell(study: Study, state: State = "COMPLETE", reason: str = "") -> list[str]:
    feed = TrackedFeed(study, Noting(study.told), Progress())  # type: ignore[arg-type]
    feed.tell([TrialResult(TrialSpec("none", 0, 1, {}, 1e-3, 0.0), state, (), 1.0, reason)])
    return study.told


def test_a_trial_is_in_the_study_before_it_is_tracked() -> None:
    assert tell(Study()) == ["study", "tracker"]
    assert tell(Study(), "FAIL", "KeyError: 'x'") == ["study", "tracker"]


def test_the_start_of_workers_is_no_time_of_trials() -> None:
    seconds = [0.0]
    forecast = Forecast([Stage("search", 100)], lambda: seconds[0])
    progress = Progress(forecast, clock=lambda: seconds[0])
    study = Study()
    spec = TrialSpec("none", 0, 1, {}, 1e-3, 0.0)
    study.ask = lambda count: [spec]  # type: ignore[attr-defined]
    feed = TrackedFeed(study, Tracker(), progress)  # type: ignore[arg-type]
    progress.train("search", 100, is_search=True)
    seconds[0] = 60.0
    feed.ask(1)
    seconds[0] = 62.0
    forecast.advance()
    seconds[0] = 64.0
    feed.ask(1)
    forecast.advance()
    assert forecast.pace(forecast.stages["search"]) == 2.0


def test_an_interrupted_trial_is_not_tracked_for_it_is_trained_again() -> None:
    assert tell(Study(), "FAIL", INTERRUPTED) == ["study"]


def test_what_the_study_did_not_take_is_not_tracked() -> None:
    study = Study(RunError("the storage failed"))
    with pytest.raises(RunError):
        tell(study)
    assert study.told == []


def test_ctrl_c_says_at_once_what_is_waited_for_and_the_second_stops_a_sleeping_trial(capfd) -> None:
    interruption = Interruption()
    with interruption.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption()
        assert "Ctrl-C again stops at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            sleep_interrupted()


def test_trials_of_other_processes_are_returned_once() -> None:
    """Those of an earlier command are among them: a continued run counts what remains."""
    ended = {3: "three"}
    store = SimpleNamespace(
        study=SimpleNamespace(study_name="S/none"),
        results_elsewhere=lambda known: {number: each for number, each in ended.items() if number not in known},
    )
    runner = object.__new__(ArmRunner)
    runner.studies = cast(Any, [SimpleNamespace(stores=[store])])
    runner._known_elsewhere = {}
    assert runner.new_elsewhere() == ["three"]
    assert runner.new_elsewhere() == []
    ended[5] = "five"
    assert runner.new_elsewhere() == ["five"]
