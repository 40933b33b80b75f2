"""MLflow is called in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dropsearch.core.errors import InputError
from dropsearch.core.processes import GONE, started
from dropsearch.tracking import make_tracker
from dropsearch.tracking.mlflow import mlflow_tracker
from dropsearch.tracking.mlflow.address import Address, resolve
from dropsearch.tracking.mlflow.background_writer import BackgroundWriter
from dropsearch.tracking.mlflow.mlflow_tracker import MlflowTracker
from dropsearch.tracking.mlflow.worker import MlflowWorker
from dropsearch.tracking.mlflow.worker_process import (
    NICENESS,
    MlflowWorkerError,
    MlflowWorkerProcess,
    worker_at,
    worker_here,
)
from tests.tracking.tracked_studies import DATA, EXPERIMENT, make_result, make_summary

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
ROOT = Path(__file__).parents[3]


class Desk:
    """Answers by name, as a recorder does."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def call(self, name: str, *given: Any) -> Any:
        return getattr(self, name)(*given)

    def note(self, word: str) -> list[str]:
        self.noted.append(word)
        return self.noted

    def where(self) -> tuple[int, int]:
        return os.getpid(), os.getpriority(os.PRIO_PROCESS, 0)

    def sleep(self) -> None:
        time.sleep(60)

    def refuse(self) -> None:
        raise InputError("the experiment must not be deleted")

    def fail(self) -> None:
        try:
            raise OSError("no space left")
        except OSError as error:
            raise RuntimeError("could not write\nand more lines") from error

    def close(self) -> None: ...


@pytest.fixture
def process() -> Iterator[MlflowWorkerProcess]:
    process = MlflowWorkerProcess(Desk)
    yield process
    process.close()


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 300
    while started(pid) != GONE and time.monotonic() < deadline:
        time.sleep(0.02)
    return started(pid) == GONE


def test_calls_are_answered_in_order_by_one_recorder_in_another_process(process: MlflowWorkerProcess):
    assert process.call("note", "first") == ["first"]
    assert process.call("note", "second") == ["first", "second"]
    assert process.call("where")[0] != os.getpid()


def test_the_training_goes_before(process: MlflowWorkerProcess):
    assert process.call("where")[1] == min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19)


def test_what_the_user_is_meant_to_read_comes_back_as_it_was(process: MlflowWorkerProcess):
    with pytest.raises(InputError, match=r"^the experiment must not be deleted$"):
        process.call("refuse")
    assert process.call("note", "still there") == ["still there"]


def test_any_other_failure_comes_back_as_its_first_cause(process: MlflowWorkerProcess):
    with pytest.raises(MlflowWorkerError, match=r"^no space left$"):
        process.call("fail")
    assert process.call("note", "still there") == ["still there"]


def test_a_recorder_that_cannot_be_made_is_a_failure_of_the_call():
    def broken() -> Desk:
        raise ImportError("no module named mlflow")

    process = MlflowWorkerProcess(broken)
    with pytest.raises(MlflowWorkerError, match="no module named mlflow"):
        process.call("note", "first")
    process.close()


def test_a_process_that_is_killed_is_named(process: MlflowWorkerProcess):
    pid, _ = process.call("where")
    os.kill(pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(MlflowWorkerError, match=r"the process that writes to MLflow ended \(SIGKILL\)"):
            process.call("note", "first")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_does_not_listen_to_signals_that_are_meant_for_its_parent(
    process: MlflowWorkerProcess, number: signal.Signals
):
    pid, _ = process.call("where")
    os.kill(pid, number)
    assert process.call("note", "still there") == ["still there"]


def test_it_ends_when_it_is_closed(process: MlflowWorkerProcess):
    pid, _ = process.call("where")
    process.close()
    assert ends(pid)


def test_it_ends_with_a_parent_that_is_killed_even_in_the_middle_of_a_call():
    program = (
        "import os, time; from dropsearch.tracking.mlflow.worker_process import MlflowWorkerProcess\n"
        "class Slow:\n"
        "    def call(self, name): print(os.getpid(), flush=True); time.sleep(60)\n"
        "MlflowWorkerProcess(Slow).call('sleep')"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, text=True, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert ends(pid)


class Foreign:
    """Can be sent, but not received."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return int, ("no number",)


def test_what_cannot_be_read_there_is_a_failure_of_the_call(process: MlflowWorkerProcess):
    with pytest.raises(MlflowWorkerError, match="no number"):
        process.call("note", Foreign())
    assert process.call("note", "still there") == ["still there"]


def test_it_is_not_killed_where_another_process_holds_its_pipe_as_well(process: MlflowWorkerProcess):
    """A data loader's worker, say, or the process of a second search in another thread."""
    neighbour = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    neighbour.start()
    process.close()
    neighbour.kill()
    neighbour.join()
    assert process._process.exitcode == 0


def test_a_forked_child_does_not_touch_it(process: MlflowWorkerProcess):
    pid = os.fork()
    if pid == 0:
        try:
            process.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert process.call("note", "still there") == ["still there"]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Hear Ctrl-C, also where the tests were begun in the background, in which shells have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fails(process: MlflowWorkerProcess, name: str) -> None:
    with pytest.raises(MlflowWorkerError):
        process.call(name)


@pytest.mark.usefixtures("ctrl_c")
def test_who_does_not_wait_for_its_end_leaves_no_process_behind(process: MlflowWorkerProcess):
    pid, _ = process.call("where")
    caller = threading.Thread(target=fails, args=(process, "sleep"))
    caller.start()
    while not process._turn.locked():
        time.sleep(0.01)
    threading.Timer(0.2, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        process.close()
    caller.join()
    assert ends(pid)


def test_a_process_that_may_not_be_nice_records_all_the_same(monkeypatch: pytest.MonkeyPatch):
    def refused(_: int) -> int:
        raise PermissionError("not permitted")

    monkeypatch.setattr(os, "nice", refused)
    process = MlflowWorkerProcess(Desk)
    assert process.call("note", "first") == ["first"]
    process.close()


def track(output_dir: Path) -> MlflowTracker:
    tracker = MlflowTracker(resolve(None, None, output_dir), output_dir)
    tracker.connect(EXPERIMENT)
    tracker.start(study="first", study_id="1d", config={}, tags={}, data=DATA)
    return tracker


def test_a_study_that_is_tracked_from_another_process_is_all_there(output_dir: Path, find: Callable[..., Any]):
    tracker = track(output_dir)
    for number in range(3):
        tracker.end(make_result(number))
    report = output_dir / "report.md"
    report.write_text("found")
    tracker.finish(make_summary(), [report])
    assert tracker.problems == []
    runs = find()
    assert {"first", "none", "dropout", "dropout/0", "dropout/1", "dropout/2"} == set(runs)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert tracker.info["run_id"] == runs["first"].info.run_id


def test_a_winner_that_torch_computes_on_threads_is_logged_from_another_process(output_dir: Path):
    torch.set_num_threads(2)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 10)).eval()
    images = torch.zeros(256, 1, 8, 8)
    wide(images)  # torch's threads are there when the process is forked
    tracker = track(output_dir)
    tracker.log_model(lambda: wide, images.numpy(), {})
    tracker.finish(make_summary(), [])
    torch.set_num_threads(1)
    assert tracker.problems == []
    assert len(list((output_dir / "mlartifacts").rglob("MLmodel"))) == 1


def test_what_a_killed_process_did_not_write_is_one_line_and_the_next_run_writes_it(
    output_dir: Path, find: Callable[..., Any]
):
    tracker = track(output_dir)
    tracker.end(make_result(0))
    assert tracker._writer is not None
    assert tracker._writer.wait()
    os.kill(tracker._worker._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    tracker.end(make_result(1))
    tracker.finish(make_summary(), [])
    first, last = tracker.problems
    assert "MLflow did not take trial dropout/1: the process that writes to MLflow ended (SIGKILL)" in first
    assert "lacks 1 of the trials that ended, first trial dropout/1: the next run of this study writes them" in last
    again = track(output_dir)
    assert again.missing(["dropout/0", "dropout/1"]) == {"dropout/1"}
    again.end(make_result(1))
    again.finish(make_summary(), [])
    assert find("attributes.run_name = 'dropout/1'")["dropout/1"].info.status == "FINISHED"


def test_the_run_does_not_wait_for_a_new_database(tmp_path: Path):
    """Only a database that is there can be refused: of a new one the study need not know more than its place."""
    gate = threading.Event()

    class Slow(Desk):
        def connect(self, experiment: str) -> str:
            gate.wait(300)
            return experiment

        def open(self, *given: Any) -> str:
            return "1"

        def describe(self, *given: Any) -> None: ...

        def end(self, status: str) -> None: ...

    tracker = MlflowTracker(resolve(None, None, tmp_path), tmp_path, worker=lambda _: Slow())
    tracker.connect(EXPERIMENT)
    tracker.start(study="first", study_id="1d", config={}, tags={}, data=DATA)
    assert tracker.location["experiment"] == EXPERIMENT
    gate.set()
    assert tracker.info["run_id"] == "1"
    tracker.close()


@pytest.mark.parametrize("step", ["connect", "open"])
def test_a_new_database_that_cannot_be_made_is_a_problem_and_no_error(tmp_path: Path, step: str):
    class Failing(Desk):
        def call(self, name: str, *given: Any) -> Any:
            if name == step:
                raise OSError("no space left")
            return {"connect": "1"}.get(name)

    tracker = MlflowTracker(resolve(None, None, tmp_path), tmp_path, worker=lambda _: Failing())
    tracker.connect(EXPERIMENT)
    tracker.start(study="first", study_id="1d", config={}, tags={}, data=DATA)
    tracker.end(make_result(3))
    tracker.finish(make_summary(), [])
    assert "no space left; the study goes on without it" in tracker.problems[0]
    assert step == "connect" or tracker.info == {}


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    tracker = make_tracker("mlflow", uri=None, output_dir=tmp_path / "file")
    with pytest.raises(InputError, match="must be an SQLite file that can be written"):
        tracker.connect(EXPERIMENT)
    tracker.close()


def test_what_this_process_ended_is_not_asked_for(tmp_path: Path):
    class Deaf(Desk):
        def call(self, name: str, *given: Any) -> Any:
            assert name != "ended_keys"
            return "1"

    tracker = MlflowTracker(resolve(None, None, tmp_path), tmp_path, worker=lambda _: Deaf())
    tracker.connect(EXPERIMENT)
    tracker.start(study="first", study_id="1d", config={}, tags={}, data=DATA)
    tracker.end(make_result(3))
    assert tracker.missing(["dropout/3"]) == set()
    tracker.close()
    assert tracker.problems == []


def test_on_linux_mlflow_is_called_elsewhere(output_dir: Path):
    worker = worker_at(resolve(None, None, output_dir))
    assert isinstance(worker, MlflowWorkerProcess)
    worker.close()


def test_where_no_process_can_be_had_mlflow_is_called_in_this_one(output_dir: Path, monkeypatch: pytest.MonkeyPatch):
    def refused() -> int:
        raise BlockingIOError("resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused)
    assert isinstance(worker_at(resolve(None, None, output_dir)), MlflowWorker)


def test_a_pools_process_which_must_have_no_children_calls_mlflow_itself(output_dir: Path):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_kind_of_recording, [output_dir]) == "MlflowWorker"


def _kind_of_recording(output_dir: Path) -> str:
    return type(worker_at(resolve(None, None, output_dir))).__name__


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_the_runs_are_written_ends_them_killed_and_drops_what_waits(
    output_dir: Path, find: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    waits = threading.Event()

    class Watched(BackgroundWriter):
        def wait(self, hurry: bool = False) -> bool:
            waits.set()
            return super().wait(hurry)

    class Interrupted:
        """A recorder beside which Ctrl-C is pressed."""

        def __init__(self, address: Address) -> None:
            self._recorder = worker_here(address)
            self.close = self._recorder.close

        def call(self, name: str, *given: Any) -> Any:
            if name == "write_summary":
                waits.wait()
                os.kill(os.getpid(), signal.SIGINT)
                interrupted.wait()
            return self._recorder.call(name, *given)

    monkeypatch.setattr(mlflow_tracker, "BackgroundWriter", Watched)
    interrupted = threading.Event()
    monkeypatch.setattr(Watched, "forget", lambda self: (BackgroundWriter.forget(self), interrupted.set()))
    tracker = MlflowTracker(resolve(None, None, output_dir), output_dir, worker=Interrupted)
    tracker.connect(EXPERIMENT)
    tracker.start(study="first", study_id="1d", config={}, tags={}, data=DATA)
    tracker.end(make_result(0))
    (output_dir / "report.md").write_text("found")
    with pytest.raises(KeyboardInterrupt):
        tracker.finish(make_summary(), [output_dir / "report.md"])
    runs = find()
    assert runs["first"].info.status == runs["dropout"].info.status == "KILLED"
    assert runs["dropout/0"].info.status == "FINISHED"
    assert not list((output_dir / "mlartifacts").rglob("report.md"))
