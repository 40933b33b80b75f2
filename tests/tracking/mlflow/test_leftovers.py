"""Trials that several invocations find untracked have one run each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dropsearch.tracking.mlflow.address import resolve
from dropsearch.tracking.mlflow.mlflow_tracker import MlflowTracker
from dropsearch.tracking.mlflow.worker_process import worker_here
from tests.tracking.tracked_studies import DATA, EXPERIMENT, make_result, make_summary

LEFT = {result.spec.key: result for result in map(make_result, (0, 1, 2))}


def opened(folder: Path, owner: str) -> MlflowTracker:
    """A tracker of a process on another host, which counts as alive."""
    tracker = MlflowTracker(resolve(None, None, folder), folder, worker=partial(worker_here, owner=owner))
    tracker.connect(EXPERIMENT)
    tracker.start(study=owner, study_id="1d", config={}, tags={}, data=DATA)
    return tracker


def catch_up(*trackers: MlflowTracker) -> None:
    """Write what each tracker misses, all having looked before any writes."""
    for tracker, keys in [(tracker, tracker.missing(LEFT)) for tracker in trackers]:
        for key in sorted(keys):
            tracker.end(LEFT[key])


def test_two_invocations_at_once_leave_one_run_for_each_trial(output_dir: Path, find: Callable[..., Any]) -> None:
    first, second = opened(output_dir, "host-a:1:1"), opened(output_dir, "host-b:1:1")
    catch_up(first, second)
    first.finish(make_summary(), [])
    second.close("KILLED")
    found = find("tags.`dropsearch.kind` = 'trial'")  # refuses a name that is there twice
    assert set(found) == set(LEFT)
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert first.problems == second.problems == []


def test_the_next_run_repairs_what_an_earlier_version_left_twice(output_dir: Path, find: Callable[..., Any]) -> None:
    first, second = opened(output_dir, "host-a:1:1"), opened(output_dir, "host-b:1:1")
    catch_up(first, second)
    for tracker in (first, second):
        tracker._catches_up = False
        tracker.finish(make_summary(), [])
    third = opened(output_dir, "host-c:1:1")
    assert third.missing(LEFT) == set()
    third.close()
    assert set(find("tags.`dropsearch.kind` = 'trial'")) == set(LEFT)


def test_a_data_set_that_another_process_writes_first_is_found(
    output_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_inputs, calls = MlflowClient.log_inputs, []

    def late(self: MlflowClient, *given: Any, **named: Any) -> None:
        calls.append(given)
        if len(calls) == 1:
            raise MlflowException("UNIQUE constraint failed: datasets.experiment_id, datasets.name, datasets.digest")
        log_inputs(self, *given, **named)

    monkeypatch.setattr(MlflowClient, "log_inputs", late)
    tracker = opened(output_dir, "host-a:1:1")
    tracker.finish(make_summary(), [])
    assert tracker.problems == []
    assert len(calls) == 2
