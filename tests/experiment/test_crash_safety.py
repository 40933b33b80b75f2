"""Law 4: nothing finished is ever lost, whatever ends a run: kill -9, a full disk, a dead server, a bad trial."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.experiment import study_audit
from tests.experiment.fault_campaign import FaultCampaign
from tests.experiment.forked_runs import TINY, Job, RunForker
from tests.experiment.kill_campaign import ARMS, KILLED, SEEDS, TOP_K, Campaign

pytestmark = [
    pytest.mark.slow,
    # MLflow's models of its own tables use a loader strategy that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]


@pytest.fixture(scope="module")
def run_forker() -> Iterator[RunForker]:
    with RunForker() as opened:
        yield opened


def job(folder: Path, *overrides: str, trials: int = 3, setup: str = "", **kill: object) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    given = [f"output_dir={folder}", f"study.n_trials={trials}", f"arms=[{','.join(ARMS)}]"]
    given += [f"confirm.top_k={TOP_K}", f"confirm.seeds={SEEDS}", *TINY]
    taken = {override.split("=")[0] for override in overrides}
    kept = [line for line in given if line.split("=")[0] not in taken]
    engine = [] if "engine" in taken else ["engine=sequential"]
    log = folder.with_name(f"{folder.name}.log")
    return Job((*kept, *engine, *overrides), str(log), setup=setup, **kill)  # type: ignore[arg-type]


def run(run_forker: RunForker, *jobs: Job) -> list[str]:
    """Run jobs side by side; all must end well. Return what they printed."""
    statuses = run_forker.run(*jobs)
    printed = [Path(job.log).read_text() for job in jobs]
    assert statuses == [0] * len(jobs), "\n".join(printed)
    return printed


def refused(run_forker: RunForker, given: Job, status: int) -> str:
    """Run a job that must end with this status and one line that says why; return the line."""
    assert run_forker.run(given) == [status], Path(given.log).read_text()
    printed = Path(given.log).read_text()
    assert "Traceback" not in printed
    lines = [line for line in printed.splitlines() if line.startswith("dropsearch: ")]
    assert len(lines) == 1, printed
    assert printed.rstrip().endswith(lines[0])
    return lines[0]


@pytest.mark.parametrize(
    ("storage", "kills", "seed", "repeats"), [("", 8, 20, 2), ("sqlite:///FOLDER/study.db", 6, 21, 1)]
)
def test_kills_at_random_moments_lose_and_repeat_nothing(
    run_forker: RunForker, tmp_path: Path, storage: str, kills: int, seed: int, repeats: int
) -> None:
    campaign = Campaign(run_forker, tmp_path, storage, seed, kills_per_study=kills, repeats=repeats)
    try:
        campaign.run(kills)
    except AssertionError as error:
        history = "\n".join(campaign.history)
        raise AssertionError(f"seed {seed} of storage {storage or 'journal'}:\n{history}\n{error}") from error
    assert campaign.kills == kills


KILLS = (
    ("study.journal", 1),
    ("study.journal", 4),
    ("study.journal", 50),
    (".ckpt", 1),
    (".ckpt", 2),
    ("best/", 1),
    ("best/", 4),
    ("figures/", 5),
    ("results.json", 1),
    ("results.json", 2),
    ("report.md", 2),
    ("mlartifacts", 2),
)
"""What is written, and at which of its writes the run is killed."""


def test_a_kill_while_a_file_is_written_leaves_the_old_file_or_the_new_one(
    run_forker: RunForker, tmp_path: Path
) -> None:
    folder, journal = tmp_path / "out", str(tmp_path / "out" / "study.journal")
    trials = 2
    for where, count in KILLS:
        before = study_audit.ended(journal)
        given = job(folder, trials=trials, kill_at_write=count, where=where)
        assert run_forker.run(given) == [KILLED], f"{where} is not written {count} times"
        study_audit.check_nothing_changed(before, study_audit.ended(journal))
        study_audit.check_results(folder / "results.json")
        for checkpoint in folder.rglob("*.ckpt"):
            assert checkpoint.stat().st_size > 10_000
    run(run_forker, job(folder, trials=trials + 1))
    study_audit.check_everything(folder, journal, ARMS, trials + 1, TOP_K, SEEDS)


def test_a_kill_while_mlflows_database_is_made_beside_the_training_loses_nothing(
    run_forker: RunForker, tmp_path: Path
) -> None:
    folder, journal = tmp_path / "out", str(tmp_path / "out" / "study.journal")
    given = job(folder, trials=2, kill_at_write=1, where="mlflow.db")
    assert run_forker.run(given) == [KILLED]
    before = study_audit.ended(journal)
    run(run_forker, job(folder, trials=3))
    study_audit.check_nothing_changed(before, study_audit.ended(journal))
    study_audit.check_everything(folder, journal, ARMS, 3, TOP_K, SEEDS)


KILLED_AT_THE_FIFTH_REPORT = """
import os, signal
from dropsearch.study.store import StudyStore

report, reports = StudyStore.report, []

def killed(self, given):
    reports.extend(given)
    if len(reports) >= 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return report(self, given)

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
    assert run_forker.run(job(folder, setup=KILLED_BEFORE_THE_THIRD_STATE)) == [KILLED]
    assert len(study_audit.ended(journal)) == 2
    run(run_forker, job(folder))
    assert all(t.number < 3 for (study, _), t in study_audit.ended(journal).items() if not study.endswith("confirm"))
    study_audit.check_everything(folder, journal, ARMS, 3, TOP_K, SEEDS)


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
    shared = (f"study.storage={storage}", f"tracking.uri={database}")
    setup = TOGETHER.replace("FOLDER", str(tmp_path))
    jobs = [job(tmp_path / name, *shared, trials=6, setup=setup) for name in ("one", "two")]
    run(run_forker, *jobs)
    study_audit.check_totals(storage, ARMS, 6, TOP_K, SEEDS)
    study_audit.check_mlflow(database, storage)
    owners = {trial.user_attrs["owner"] for trial in study_audit.ended(storage).values()}
    assert len(owners) == 2, "one of them did nothing"
    for name in ("one", "two"):
        study_audit.check_results(tmp_path / name / "results.json", storage)


def test_workers_and_the_run_that_reports_share_its_trials(run_forker: RunForker, tmp_path: Path) -> None:
    storage, folder = f"sqlite:///{tmp_path}/shared.db", tmp_path / "out"
    setup = TOGETHER.replace("FOLDER", str(tmp_path)).replace("< 2", "< 3")
    shared = (f"study.storage={storage}",)
    reports = job(folder, *shared, trials=9, setup=setup)
    worker, elsewhere = (
        job(tmp_path / name, *shared, "task=work", f"output_dir={where}", trials=9, setup=setup)
        for name, where in (("worker", folder), ("elsewhere", tmp_path / "elsewhere"))
    )
    _, log, other_log = run(run_forker, reports, worker, elsewhere)
    study_audit.check_everything(folder, storage, ARMS, 9, TOP_K, SEEDS)
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
    killed = job(tmp_path / "one", *shared, trials=6, setup=setup + KILLED_IN_A_TRIAL)
    living = job(tmp_path / "two", *shared, trials=6, setup=setup)
    assert run_forker.run(killed, living) == [KILLED, 0], Path(living.log).read_text()
    notes = [note for study in study_audit.studies(storage).values() for note in study.user_attrs.values()]
    assert notes.count("its process died") == 1
    study_audit.check_totals(storage, ARMS, 6, TOP_K, SEEDS)
    study_audit.check_results(tmp_path / "two" / "results.json", storage)
    run(run_forker, living)  # which closes the runs that the other left open
    study_audit.check_mlflow(database, storage)


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


@contextmanager
def file_system(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """Mount a file system of this size; yields what mounts it anew with other options."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "dropsearch-test", str(folder)]
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("needs Linux's tmpfs")
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"file systems may not be mounted here: {done.stderr.strip()}")

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def leave_free(folder: Path, kilobytes: int) -> None:
    """Fill a file system up to so many free kilobytes."""
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    space = os.statvfs(folder)
    filler.write_bytes(b"x" * max(0, space.f_bavail * space.f_frsize - 1024 * kilobytes))


def test_a_full_disk_is_one_line_and_the_study_continues_later(run_forker: RunForker, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with file_system(disk, "32m"):
        folder, journal = disk / "out", str(disk / "out" / "study.journal")
        failures = 0
        for trials, free in enumerate((0, 8, 24, 40, 100, 200, 400), start=2):
            before = study_audit.ended(journal)
            leave_free(disk, free)
            given = job(folder, "tracking=none", trials=trials)
            given = Job(given.overrides, str(tmp_path / "log"))
            (status,) = run_forker.run(given)
            printed = Path(given.log).read_text()
            assert status in (0, 1, 2), printed
            assert "Traceback" not in printed
            if status:
                failures += 1
                assert printed.count("dropsearch: ") == 1
                assert "space" in printed.splitlines()[-1], printed
            study_audit.check_nothing_changed(before, study_audit.ended(journal))
            study_audit.check_results(folder / "results.json")
        assert failures > 2
        (disk / "filler").unlink()
        run(run_forker, Job(job(folder, trials=9).overrides, str(tmp_path / "log")))
        study_audit.check_everything(folder, journal, ARMS, 9, TOP_K, SEEDS)


def test_where_only_the_tracking_has_no_space_the_study_ends_and_the_next_run_tracks_it(
    run_forker: RunForker, tmp_path: Path
) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "out"
    with file_system(disk, "8m"):
        there = f"tracking.uri=sqlite:///{disk}/mlflow.db"
        run(run_forker, job(folder, there, trials=1))
        (printed,) = run(run_forker, job(folder, there, trials=3, setup=TRACKING_STARTS_BEFORE_THE_DISK_IS_FULL))
        assert printed.count("tracking: MLflow did not take") == 1
        assert "the next run of this study writes them" in printed
        (disk / "filler").unlink()
        (printed,) = run(run_forker, job(folder, there, trials=3))
        assert "tracking:" not in printed
        study_audit.check_mlflow(f"sqlite:///{disk}/mlflow.db", str(folder / "study.journal"))


TRACKING_STARTS_BEFORE_THE_DISK_IS_FULL = """
from pathlib import Path
from dropsearch.experiment.arm_runner import ArmRunner

search = ArmRunner.search

def full(self, watch):
    disk = Path(self.context.config.tracking.uri.removeprefix("sqlite:///")).parent
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return search(self, watch)

ArmRunner.search = full
"""


@pytest.mark.parametrize("url", ["FOLDER/study.journal", "sqlite:///FOLDER/study.db"])
def test_a_storage_that_can_only_be_read_is_refused_in_one_line(
    run_forker: RunForker, tmp_path: Path, url: str
) -> None:
    disk = tmp_path / "disk"
    with file_system(disk, "16m") as remount:
        given = job(tmp_path / "out", f"study.storage={url.replace('FOLDER', str(disk))}", "tracking=none", trials=1)
        run(run_forker, given)
        remount("ro")
        assert "study.storage must be" in refused(run_forker, given, 2)
        remount("rw")
        run(run_forker, given)


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--default-artifact-root", str(folder / "art")]
    server = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
    try:
        until = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)
        yield server
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_tracking_server_that_dies_costs_a_line_and_the_next_run_tracks_what_it_missed(
    run_forker: RunForker, tmp_path: Path
) -> None:
    port, folder = free_port(), tmp_path / "out"
    uri = f"tracking.uri=http://127.0.0.1:{port}"
    with mlflow_server(tmp_path, port) as server:
        setup = f"""
import os, signal
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # a dead server is known at once
from dropsearch.study.store import StudyStore
tell, told = StudyStore.tell, []
def and_kill_the_server(self, results):
    tell(self, results)
    told.extend(results)
    if len(told) == 3:
        os.killpg({server.pid}, signal.SIGKILL)
StudyStore.tell = and_kill_the_server
"""
        (printed,) = run(run_forker, job(folder, uri, setup=setup))
    assert printed.count("tracking: MLflow did not take") == 1
    study_audit.check_totals(str(folder / "study.journal"), ARMS, 3, TOP_K, SEEDS)
    database = f"sqlite:///{tmp_path}/server.db"  # the server's own, which is quicker than another server
    run(run_forker, job(folder, f"tracking.uri={database}"))
    study_audit.check_mlflow(database, str(folder / "study.journal"))


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
    assert all(trials[n].user_attrs["result"]["reason"].startswith(reason) for n in (1, 2))
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
    run(run_forker, job(folder, "tracking=none", trials=8))
    study_audit.check_everything(folder, storage, ARMS, 8, TOP_K, SEEDS)


def test_faults_at_random_moments_lose_and_repeat_nothing(run_forker: RunForker, tmp_path: Path):
    """At length, and over PostgreSQL too, by `scripts/prove/attack.py`."""
    campaign = FaultCampaign(run_forker, tmp_path, "sqlite", seed=1, faults_per_study=4)
    campaign.run(4)
    assert campaign.faults.total() >= 4
    assert campaign.endings >= 1
