"""Law 4: a disk that is full or read-only, or a tracking server that dies, costs a line and no trial."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.experiment import study_audit
from tests.experiment.crash_jobs import job, refused, run
from tests.experiment.forked_runs import Job, RunForker
from tests.experiment.kill_campaign import ARMS, SEEDS, TOP_K
from tests.free_port import free_port
from tests.tracking.mlflow.mlflow_pages import start_server, wait_for


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
        for trials, free in enumerate((0, 8, 60), start=2):
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
        assert failures > 1
        (disk / "filler").unlink()
        run(run_forker, Job(job(folder, trials=5).overrides, str(tmp_path / "log")))
        study_audit.check_everything(folder, journal, ARMS, 5, TOP_K, SEEDS)


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
def mlflow_server(database: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    artifacts = {"_MLFLOW_SERVER_ARTIFACT_ROOT": str(database.parent / "art")}
    server = start_server(port, database, artifacts, in_session=True)
    try:
        wait_for(server, port, database)
        yield server
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_tracking_server_that_dies_costs_a_line_and_the_next_run_tracks_what_it_missed(
    run_forker: RunForker, tmp_path: Path, empty_database: Path
) -> None:
    port, folder = free_port(), tmp_path / "out"
    uri = f"tracking.uri=http://127.0.0.1:{port}"
    with mlflow_server(empty_database, port) as server:
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
    database = f"sqlite:///{empty_database}"  # the server's own, which is quicker than another server
    run(run_forker, job(folder, f"tracking.uri={database}"))
    study_audit.check_mlflow(database, str(folder / "study.journal"))
