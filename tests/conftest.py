from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import settings

from dropsearch._compat.lightning import entry_points_once
from tests.experiment.forked_runs import RunForker, rare_garbage
from tests.hydra_within import fit_in
from tests.lightning_within import fit_in as fit_in_lightning
from tests.lightning_within import put_back_loaders

# A machine that is busy may take any time over an example: no test is timed.
settings.register_profile("untimed", deadline=None, max_examples=30)
settings.load_profile("untimed")

MLFLOW_WARNINGS = (
    # Its models of its own tables use a loader strategy that SQLAlchemy 2.1 deprecates.
    "ignore:The ``noload`` loader strategy is deprecated",
    # It says so of types of its own, when mlflow.pyfunc is imported.
    "ignore:.*Any type hint is inferred as AnyType",
)
WITH_MLFLOW = [Path(__file__).parent / package for package in ("api", "experiment", "tracking")]

SRUN = "ignore:The `srun` command is available"
"""Lightning warns so wherever SLURM is installed."""

WHOLE_RUNS = [
    Path(__file__).parent / place
    for place in (
        *("api", "experiment", "packaging", "parity", "tracking/mlflow", "training/vectorized"),
        *("training/test_hugging_face.py", "training/test_multiprocess.py"),
    )
]
"""Tests of whole trials and runs, installed packages and databases: `-m "not slow"` leaves them out."""

# Nothing that is imported becomes garbage: to look for it takes a tenth of the time of all imports.
gc.disable()


@pytest.fixture(autouse=True, scope="module")
def _own_imports() -> Iterator[None]:
    """Forget the user code that a file of tests imports: another file has modules of the same names."""
    path = [*sys.path]
    known = {*sys.modules}
    installed = tuple(folder for folder in path if folder)
    yield
    sys.path[:] = path
    for name in {*sys.modules} - known:
        place = getattr(sys.modules[name], "__file__", None)
        if place is not None and not place.startswith(installed):
            del sys.modules[name]


@pytest.fixture(autouse=True, scope="module")
def _own_process() -> Iterator[None]:
    """Put back what a file of tests changes in its process, which is that of others too; no thread of it goes on."""
    folder, environment, threads = os.getcwd(), dict(os.environ), {*threading.enumerate()}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    if torch := sys.modules.get("torch"):
        # Threads gain nothing in networks this small, and each waits for the others where other tests want the cores.
        torch.set_num_threads(1)
    yield
    os.chdir(folder)
    for name in {*os.environ} - {*environment}:
        del os.environ[name]
    os.environ.update(environment)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if torch := sys.modules.get("torch"):
        put_back_loaders()
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
    started = {thread: _module(thread) for thread in {*threading.enumerate()} - threads}
    if started:
        gc.collect()  # the threads of a pool end when nothing holds it
    for thread, module in started.items():
        thread.join(60 if module.startswith(OURS) else 1 if module.startswith("concurrent.") else 0)
    assert [thread.name for thread, module in started.items() if module.startswith(OURS) and thread.is_alive()] == []


OURS = ("dropsearch", "tests")


def _module(thread: threading.Thread) -> str:
    """Return the module of what a thread runs."""
    run = type(thread) if type(thread) is not threading.Thread else getattr(thread, "_target", None)
    return str(getattr(run, "__module__", ""))


@pytest.fixture(autouse=True, scope="session")
def _entry_points_once() -> Iterator[None]:
    """Read the entry points of installed packages once for all Trainers, those of plain Lightning too."""
    with entry_points_once("lightning.pytorch") if "lightning" in sys.modules else nullcontext():
        yield


@pytest.fixture(autouse=True, scope="session")
def _hydra_and_lightning() -> None:
    fit_in()
    fit_in_lightning()


@pytest.fixture(autouse=True, scope="session")
def _no_stacks() -> Iterator[None]:
    """Let `torch.manual_seed` keep no stack for each device that is not there: that takes longer than most modules."""
    torch = sys.modules.get("torch")
    with pytest.MonkeyPatch.context() as patch:
        if torch and not any(each.is_available() for each in (torch.cuda, torch.xpu, torch.mtia, torch.backends.mps)):
            patch.setattr("torch.random._manual_seed_impl", lambda seed: torch.default_generator.manual_seed(int(seed)))
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The folder of all processes of pytest-xdist; None where one process runs all tests."""
    return tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else None


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path | None) -> None:
    """Copy MLflow's tables into new databases, in processes that tests start through `run_forker` as well."""
    from tests import mlflow_tables

    os.environ[mlflow_tables.PLACE] = str((shared_folder or tmp_path_factory.mktemp("tables")) / "mlflow.db")
    mlflow_tables.copy_tables()


@pytest.fixture(scope="session")
def run_forker(mlflow_tables: None, shared_folder: Path | None) -> Iterator[RunForker]:
    with RunForker(shared_folder) as opened:
        yield opened


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no whole runs, nor the libraries that they alone import, where all of them are left out."""
    return True if config.option.markexpr == "not slow" and collection_path in WHOLE_RUNS else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marks = {path: list(_marks(path)) for path in {item.path for item in items}}
    for item in items:
        for mark in marks[item.path]:
            item.add_marker(mark)
    # Files with long tests first, so that at the end no process is busy for long while the others have nothing to do.
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    rare_garbage()


def _marks(path: Path) -> Iterator[pytest.MarkDecorator]:
    """Yield the marks of all tests of a file."""
    if any(place in (path, *path.parents) for place in WHOLE_RUNS):
        yield pytest.mark.slow
    if path.name != "test_slurm.py":
        yield pytest.mark.filterwarnings(SRUN)
    if any(folder in path.parents for folder in WITH_MLFLOW):
        for warning in MLFLOW_WARNINGS:
            yield pytest.mark.filterwarnings(warning)
