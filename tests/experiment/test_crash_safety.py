"""Law 4: what was told is never lost, whatever is written when a run is killed, and whichever trial fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.experiment import study_audit
from tests.experiment.crash_jobs import job, refused, run
from tests.experiment.forked_runs import RunForker
from tests.experiment.kill_campaign import ARMS, KILLED, SEEDS, TOP_K

KILLS = (
    ("study.journal", 1),
    ("study.journal", 50),
    (".ckpt", 1),
    (".ckpt", 2),
    ("best/", 4),
    ("figures/", 2),
    ("results.json", 1),
    ("results.json", 2),
    ("report.md", 2),
    ("mlartifacts", 2),
)
"""What is written, and at which of its writes the run is killed."""
TRACKED = ("mlartifacts",)


def test_a_kill_while_a_file_is_written_leaves_the_old_file_or_the_new_one(
    run_forker: RunForker, tmp_path: Path
) -> None:
    folder, journal = tmp_path / "out", str(tmp_path / "out" / "study.journal")
    trials = 2
    for where, count in KILLS:
        before = study_audit.ended(journal)
        # What is not tracked the last run tracks.
        tracking = () if where in TRACKED else ("tracking=none",)
        given = job(folder, *tracking, trials=trials, kill_at_write=count, where=where)
        assert run_forker.run(given) == [KILLED], f"{where} is not written {count} times"
        study_audit.check_nothing_changed(before, study_audit.ended(journal))
        study_audit.check_results(folder / "results.json")
        for checkpoint in folder.rglob("*.ckpt"):
            assert checkpoint.stat().st_size > 10_000
    run(run_forker, job(folder, trials=trials + 1))
    study_audit.check_everything(folder, journal, ARMS, trials + 1, TOP_K, SEEDS)


MADE_BY_MLFLOW = "from tests.mlflow_tables import make_tables; make_tables()\n"


def test_a_kill_while_mlflows_database_is_made_beside_the_training_loses_nothing(
    run_forker: RunForker, tmp_path: Path
) -> None:
    folder, journal = tmp_path / "out", str(tmp_path / "out" / "study.journal")
    given = job(folder, trials=2, kill_at_write=1, where="mlflow.db", setup=MADE_BY_MLFLOW)
    assert run_forker.run(given) == [KILLED]
    before = study_audit.ended(journal)
    run(run_forker, job(folder, trials=3))
    study_audit.check_nothing_changed(before, study_audit.ended(journal))
    study_audit.check_everything(folder, journal, ARMS, 3, TOP_K, SEEDS)


KILLED_AT_THE_FIFTH_REPORT = """
import os, signal
from dropsearch.study.store import StudyStore

report, reports = StudyStore.report, []

def killed(self, given, *times):
    reports.extend(given)
    if len(reports) >= 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return report(self, given, *times)

StudyStore.report = killed
"""


def test_waiting_trials_are_neither_lost_nor_repeated(run_forker: RunForker, tmp_path: Path) -> None:
    folder, journal = tmp_path / "out", str(tmp_path / "out" / "study.journal")
    searched = "space.params={model.hidden: [[16],[12]]}"
    given = (
        "engine=vectorized",
        "engine.width=4",
        "engine.processes=1",
        "model.hidden=[16]",
        "tracking=none",
        searched,
    )
    assert run_forker.run(job(folder, *given, trials=6, setup=KILLED_AT_THE_FIFTH_REPORT)) == [KILLED]
    left = [
        trial
        for study in study_audit.studies(journal).values()
        for trial in study.trials
        if not trial.state.is_finished()
    ]
    assert {trial.params["model.hidden"] for trial in left} == {"[16]", "[12]"}, "none of them was waiting"
    run(run_forker, job(folder, *given, trials=6))
    study_audit.check_everything(folder, journal, ARMS, 6, TOP_K, SEEDS)


KILLED_BEFORE_THE_THIRD_STATE = """
import os, signal
from optuna.storages.journal import JournalFileBackend

append, told = JournalFileBackend.append_logs, []

def killed(self, logs):
    told.extend(log for log in logs if "result" in log.get("user_attr", {}))
    if len(told) == 3:
        append(self, logs[:-1])  # all but the state, as if the last block of the write was lost
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, logs)

JournalFileBackend.append_logs = killed
"""


def test_a_trial_whose_result_was_written_but_not_its_state_is_neither_lost_nor_repeated(
    run_forker: RunForker, tmp_path: Path
) -> None:
    folder, journal = tmp_path / "out", str(tmp_path / "out" / "study.journal")
    assert run_forker.run(job(folder, "tracking=none", setup=KILLED_BEFORE_THE_THIRD_STATE)) == [KILLED]
    assert len(study_audit.ended(journal)) == 2
    run(run_forker, job(folder, "tracking=none"))
    assert all(t.number < 3 for (study, _), t in study_audit.ended(journal).items() if not study.endswith("confirm"))
    study_audit.check_everything(folder, journal, ARMS, 3, TOP_K, SEEDS)


def test_a_confirmed_model_that_was_deleted_is_trained_again_to_the_same_numbers(
    run_forker: RunForker, tmp_path: Path
) -> None:
    folder, journal = tmp_path / "out", str(tmp_path / "out" / "study.journal")
    run(run_forker, job(folder, "tracking=none"))
    before = json.loads((folder / "results.json").read_text())["arms"]
    lost = sorted((folder / "checkpoints").rglob("*.ckpt"))[0]
    lost.unlink()
    run(run_forker, job(folder, "tracking=none"))
    assert lost.exists()
    study_audit.check_totals(journal, ARMS, 3, TOP_K, SEEDS)
    after = json.loads((folder / "results.json").read_text())["arms"]
    for arm in ARMS:
        assert after[arm]["winner"] == before[arm]["winner"]
        assert after[arm]["confirmed"] == before[arm]["confirmed"]


FAILING = """
import os, pathlib, torch
from dropsearch.experiment import arm_runner
from dropsearch.experiment.context import ExperimentContext

make, search = ExperimentContext.make_module, arm_runner.ArmRunner.search
begun = pathlib.Path("BEGUN")

def begin(self, watch):
    begun.touch()  # a file, for processes that were forked before must see it; trials before are measurements
    return search(self, watch)

def failing(self, spec):
    if begun.exists() and (spec.arm, spec.phase) == ("none", "search") and spec.number in NUMBERS:
        raise ERROR
    return make(self, spec)

ExperimentContext.make_module, arm_runner.ArmRunner.search = failing, begin
"""


def failing(folder: Path, numbers: str, error: str) -> str:
    return FAILING.replace("BEGUN", str(folder / "begun")).replace("NUMBERS", numbers).replace("ERROR", error)


@pytest.mark.parametrize(
    ("engine", "error", "reason"),
    [
        ("sequential", "torch.OutOfMemoryError('CUDA out of memory')", "out of memory: CUDA out of memory"),
        ("vectorized", "KeyError('no such layer')", "KeyError: there is no key 'no such layer' ("),
    ],
    ids=["sequential", "vectorized"],
)
def test_a_trial_that_raises_or_runs_out_of_memory_fails_with_its_reason_and_the_study_goes_on(
    run_forker: RunForker, tmp_path: Path, engine: str, error: str, reason: str
) -> None:
    folder, storage = tmp_path / "out", str(tmp_path / "out" / "study.journal")
    tracking = "mlflow" if engine == "sequential" else "none"
    setup = failing(tmp_path, "(1, 2)", error)
    run(run_forker, job(folder, f"engine={engine}", f"tracking={tracking}", trials=4, setup=setup))
    trials = [t for (study, _), t in study_audit.ended(storage).items() if study == f"{study_audit.NAME}/none"]
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    assert all(study_audit.result_of(trials[n])["reason"].startswith(reason) for n in (1, 2))
    study_audit.check_everything(folder, storage, ARMS, 4, TOP_K, SEEDS)


def test_when_the_first_five_trials_fail_alike_the_run_stops_with_one_line_and_can_be_continued(
    run_forker: RunForker, tmp_path: Path
) -> None:
    setup = failing(tmp_path, "range(100)", "ValueError(f'layer {spec.number} is bad')")
    folder, storage = tmp_path / "out", str(tmp_path / "out" / "study.journal")
    line = refused(run_forker, job(folder, "tracking=none", trials=6, setup=setup), 1)
    said = "dropsearch: the first 5 trials of arm none all failed for the same reason: ValueError: layer 0 is bad"
    assert line.startswith(f"{said} (")
    assert len(study_audit.ended(storage)) == 5
    run(run_forker, job(folder, "tracking=none", trials=6))
    study_audit.check_everything(folder, storage, ARMS, 6, TOP_K, SEEDS)
