from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from dropsearch.errors import InputError
from dropsearch.tracking import NullTracker, Tracker, make_tracker
from dropsearch.tracking.address import resolve
from dropsearch.tracking.meanwhile import ReadyMeanwhile
from tests.tracking.tracked_studies import DATA, EXPERIMENT, make_curve, make_result, make_spec, make_summary

START: dict[str, Any] = {"study": "first", "study_id": "1d", "config": {}, "tags": {}, "data": DATA}


class Noting(NullTracker):
    """Notes what is called, in order."""

    def __init__(self, fails_at: str = "", error: Exception | None = None) -> None:
        self.calls: list[str] = []
        self._fails_at, self._error = fails_at, error

    def _note(self, call: str) -> None:
        if call == self._fails_at and self._error:
            raise self._error
        self.calls.append(call)

    def connect(self, experiment: str) -> None:
        self._note("connect")

    def start(self, **given: Any) -> None:
        self._note(f"start {given['study']}")

    def epoch(self, spec: Any, metrics: Any) -> None:
        self._note(f"epoch {metrics.epoch}")

    def end(self, result: Any) -> None:
        self._note(f"end {result.spec.key}")

    def finish(self, summary: Any, artifacts: Any, model: Any, example: Any) -> None:
        self._note("finish")

    def close(self, status: str = "FAILED") -> None:
        self._note(f"close {status}")


def meanwhile(tmp_path: Path, make: Callable[[], Tracker]) -> ReadyMeanwhile:
    tracker = ReadyMeanwhile(make, resolve(None, None, tmp_path))
    tracker.connect(EXPERIMENT)
    return tracker


def test_what_happens_before_it_is_ready_is_passed_on_in_order(tmp_path: Path):
    made, noting = threading.Event(), Noting()

    def make() -> Tracker:
        assert made.wait(30)
        return noting

    tracker = meanwhile(tmp_path, make)
    tracker.start(**START)
    tracker.epoch(make_spec(), make_curve()[0])
    tracker.end(make_result(3))
    assert tracker.place["experiment"] == EXPERIMENT
    assert noting.calls == []
    made.set()
    tracker.finish(make_summary(), [], None, None)
    assert noting.calls == ["connect", "start first", "epoch 0", "end dropout/3", "finish"]


def test_calls_keep_their_order_while_it_gets_ready(tmp_path: Path):
    noting = Noting()
    tracker = meanwhile(tmp_path, lambda: noting)
    tracker.start(**START)
    for number in range(300):
        tracker.end(make_result(number))
    tracker.close("KILLED")
    assert noting.calls == ["connect", "start first", *(f"end dropout/{n}" for n in range(300)), "close KILLED"]


@pytest.mark.parametrize("error", [InputError("MLflow must be able to open the experiment"), OSError("no space left")])
@pytest.mark.parametrize("step", ["connect", "start first"])
def test_a_tracker_that_fails_to_start_is_a_problem_and_no_error(tmp_path: Path, step: str, error: Exception):
    tracker = meanwhile(tmp_path, lambda: Noting(step, error))
    tracker.start(**START)
    tracker.end(make_result(3))
    tracker.finish(make_summary(), [], None, None)
    (problem,) = tracker.problems
    assert str(error) in problem
    assert problem.endswith("the study goes on without it")
    assert tracker.info == {}


@pytest.mark.parametrize("when", ["while it gets ready", "later"])
def test_one_that_fails_later_is_closed_and_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], when: str):
    made, noting = threading.Event(), Noting("end dropout/3", OSError("no space left"))

    def make() -> Tracker:
        assert made.wait(30)
        return noting

    tracker = meanwhile(tmp_path, make)
    tracker.start(**START)
    if when == "later":
        made.set()
        assert tracker.info == {}
    tracker.end(make_result(3))
    made.set()
    assert tracker.info == {}
    assert noting.calls == ["connect", "start first", "close FAILED"]
    assert "tracking: MLflow cannot be used: " in capsys.readouterr().err


def test_one_that_ends_its_thread_is_a_problem_and_no_error(tmp_path: Path):
    tracker = meanwhile(tmp_path, lambda: Noting("connect", cast(Exception, SystemExit(1))))
    tracker.finish(make_summary(), [], None, None)
    assert len(tracker.problems) == 1


def test_what_ends_the_run_is_not_taken_for_a_problem_of_tracking(tmp_path: Path):
    tracker = meanwhile(tmp_path, lambda: Noting("end dropout/3", cast(Exception, KeyboardInterrupt())))
    assert tracker.info == {}
    with pytest.raises(KeyboardInterrupt):
        tracker.end(make_result(3))


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    tracker = make_tracker("mlflow", uri=None, output_dir=tmp_path / "file")
    with pytest.raises(InputError, match="must be an SQLite file that can be written"):
        tracker.connect(EXPERIMENT)
    tracker.close()


def test_only_a_database_that_is_yet_to_be_made_is_opened_meanwhile(tmp_path: Path, output_dir: Path):
    assert not isinstance(make_tracker("mlflow", uri=None, output_dir=output_dir), ReadyMeanwhile)
    assert isinstance(make_tracker("mlflow", uri=None, output_dir=tmp_path / "new"), ReadyMeanwhile)
