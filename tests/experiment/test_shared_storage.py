"""Law 4: processes that work on one storage share its trials, and train what a killed one left."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropsearch.experiment.runner import SHARED
from tests.experiment import study_audit
from tests.experiment.crash_jobs import job, run
from tests.experiment.forked_runs import RunForker
from tests.experiment.kill_campaign import ARMS, KILLED, SEEDS, TOP_K

TOGETHER = """
import os, pathlib, time
from dropsearch.experiment.arm_runner import ArmRunner

search = ArmRunner.search

def together(self, watch):
    pathlib.Path(f"FOLDER/ready.{os.getpid()}").touch()
    while len(list(pathlib.Path("FOLDER").glob("ready.*"))) < 2:
        time.sleep(0.001)
    return search(self, watch)

ArmRunner.search = together
"""


@pytest.mark.parametrize("url", ["FOLDER/shared.journal", "sqlite:///FOLDER/shared.db"])
def test_two_processes_that_work_on_one_storage_share_its_trials(
    run_forker: RunForker, tmp_path: Path, url: str
) -> None:
    storage = url.replace("FOLDER", str(tmp_path))
    database = f"sqlite:///{tmp_path}/mlflow.db"
    tracking = f"tracking.uri={database}" if url.startswith("sqlite") else "tracking=none"
    shared = (f"study.storage={storage}", tracking)
    setup = TOGETHER.replace("FOLDER", str(tmp_path))
    jobs = [job(tmp_path / name, *shared, trials=4, setup=setup) for name in ("one", "two")]
    run(run_forker, *jobs)
    study_audit.check_totals(storage, ARMS, 4, TOP_K, SEEDS)
    if tracking != "tracking=none":
        study_audit.check_mlflow(database, storage)
    owners = {trial.user_attrs["owner"] for trial in study_audit.ended(storage).values()}
    assert len(owners) == 2, "one of them did nothing"
    for name in ("one", "two"):
        study_audit.check_results(tmp_path / name / "results.json", storage)


def test_workers_and_the_run_that_reports_share_its_trials(run_forker: RunForker, tmp_path: Path) -> None:
    storage, folder = f"sqlite:///{tmp_path}/shared.db", tmp_path / "out"
    setup = TOGETHER.replace("FOLDER", str(tmp_path)).replace("< 2", "< 3")
    shared = (f"study.storage={storage}",)
    reports = job(folder, *shared, trials=5, setup=setup)
    worker, elsewhere = (
        job(tmp_path / name, *shared, "task=work", f"output_dir={where}", trials=5, setup=setup)
        for name, where in (("worker", folder), ("elsewhere", tmp_path / "elsewhere"))
    )
    own_log, log, other_log = run(run_forker, reports, worker, elsewhere)
    assert SHARED in own_log
    study_audit.check_everything(folder, storage, ARMS, 5, TOP_K, SEEDS)
    trials = study_audit.ended(storage)
    owners = {trial.user_attrs["owner"] for trial in trials.values()}
    assert len(owners) == 3, "one of them did nothing"
    assert sum(trial.user_attrs.get("worker", False) for trial in trials.values()) > 0
    assert log.splitlines()[-1].endswith("trials")
    assert "has nothing left to train" in log
    assert "leaves the retrainings to processes that share output_dir" in other_log
    assert not list((tmp_path / "elsewhere").rglob("*.ckpt"))


KILLED_IN_A_TRIAL = """
import os, signal
from dropsearch.study.store import StudyStore
StudyStore.report = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_surviving_process_trains_what_a_killed_one_left(run_forker: RunForker, tmp_path: Path) -> None:
    storage, database = str(tmp_path / "shared.journal"), f"sqlite:///{tmp_path}/mlflow.db"
    shared = (f"study.storage={storage}", f"tracking.uri={database}")
    setup = TOGETHER.replace("FOLDER", str(tmp_path))
    killed = job(tmp_path / "one", *shared, trials=4, setup=setup + KILLED_IN_A_TRIAL)
    living = job(tmp_path / "two", *shared, trials=4, setup=setup)
    assert run_forker.run(killed, living) == [KILLED, 0], Path(living.log).read_text()
    notes = [note for study in study_audit.studies(storage).values() for note in study.user_attrs.values()]
    assert notes.count("its process died") == 1
    study_audit.check_totals(storage, ARMS, 4, TOP_K, SEEDS)
    study_audit.check_results(tmp_path / "two" / "results.json", storage)
    run(run_forker, living)  # which closes the runs that the other left open
    study_audit.check_mlflow(database, storage)
