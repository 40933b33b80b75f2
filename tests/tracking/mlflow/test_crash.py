"""kill -9 while a study is tracked, then the next run of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.experiment.forked_runs import RunForker
from tests.tracking.tracked_studies import make_result

PROGRAM = """
import os, signal, sys
from pathlib import Path
from dropsearch.tracking import make_tracker
from tests.tracking.tracked_studies import DATA, EXPERIMENT, make_curve, make_result, make_spec

tracker = make_tracker("mlflow", uri=None, output_dir=Path(sys.argv[1]))
tracker._flush_seconds = 0.0
tracker.connect(EXPERIMENT)
tracker.start(study="first", study_id="1d", config={}, tags={}, data=DATA)
tracker.end(make_result(0))
for metrics in make_curve():
    tracker.epoch(make_spec(1), metrics)
tracker._writer.wait()
for number in range(2, 200):
    tracker.end(make_result(number))
    if number == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [5, 190])
def test_after_a_kill_each_trial_is_there_exactly_once(
    number: int,
    output_dir: Path,
    begin: Callable[..., Any],
    find: Callable[..., dict[str, Any]],
    run_forker: RunForker,
):
    killed = run_forker.python(output_dir, "-c", PROGRAM, str(output_dir), str(number))  # while the tracker writes
    assert killed.returncode == -9, killed.stderr
    # `find` refuses a name that is there twice.
    left = {name for name, run in find().items() if run.info.status == "RUNNING"}
    assert {"first", "dropout", "dropout/1"} <= left
    keys = {f"dropout/{i}" for i in range(20)}
    tracker = begin()
    missing = tracker.missing(keys)
    assert "dropout/0" not in missing
    assert "dropout/1" in missing
    for key in sorted(missing):
        tracker.end(make_result(int(key.split("/")[1])))
    assert tracker.missing(keys) == set()
    tracker.close("KILLED")
    runs = tracker._worker._runs.client.search_runs([tracker.info["experiment_id"]])
    statuses = [(run.data.tags.get("dropsearch.key"), run.info.status) for run in runs]
    assert "RUNNING" not in {status for _, status in statuses}
    for key in keys:
        assert statuses.count((key, "FINISHED")) == 1
    whole = [run for run in runs if run.data.tags.get("dropsearch.key") in keys]
    assert {run.data.metrics["dropsearch/epochs"] for run in whole} == {4.0}
