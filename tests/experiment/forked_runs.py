"""Runs of the program in forked processes that die when they are told to.

One process imports everything, which takes seconds, and forks a child for each run, which takes none.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import json
import os
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from dropsearch.core.processor_use import ProcessorUse, processor_time

ROOT = Path(__file__).parents[2]
STANDS, WORKS, LOOK = 120.0, 600.0, 1.0
"""Seconds without and with processor time after which a run is taken to hang, however busy the machine is; and between
two looks."""
TINY = (
    "data.train_size=200",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "tracking.log_model=false",
)


@dataclass(frozen=True)
class Job:
    """One run of the program, or of Python."""

    overrides: tuple[str, ...]
    log: str
    """Where its output goes."""
    kill_after: float | None = None
    """Seconds after which it is killed."""
    kill_at_write: int | None = None
    """It is killed when for the nth time it opens for writing, renames, links or removes what `where` is part of."""
    where: str = ""
    setup: str = ""
    """Python that its process runs first."""
    cwd: str | None = None
    errors: str = ""
    """Where its standard error goes; by default to its output."""
    python: tuple[str, ...] = ()
    """What stands behind `python` on a command line (-c, -m or a script), in the place of the program."""
    stop_by: int | None = None
    """A signal to the run and its workers, when the file `where` shows `stop_at`."""
    stop_at: str = ""


def shell_words(command: str, folder: Path) -> list[str]:
    """Return the words that a shell reads in a command."""
    read = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], cwd=folder, capture_output=True, check=True)
    return os.fsdecode(read.stdout).split("\0")[:-1]


class RunForker:
    """The process that forks the runs. Use as a context manager."""

    def __enter__(self) -> RunForker:
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": paths}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.experiment.forked_runs"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, *jobs: Job) -> list[int]:
        """Run jobs side by side; return their exit statuses, -9 for one that was killed, -6 for one that hung."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that forks the runs has died: {self._process.wait()}")
        return json.loads(answer)

    def python(self, folder: Path, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run Python in a folder, as these words behind `python` say; `how` is of a `Job`."""
        with tempfile.TemporaryDirectory() as elsewhere:
            out, err = Path(elsewhere, "out"), Path(elsewhere, "err")
            job = Job((), str(out), errors=str(err), python=words, cwd=str(folder), **how)
            (status,) = self.run(job)
            return subprocess.CompletedProcess(words, status, out.read_text(), err.read_text())

    def shell(self, folder: Path, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command line of this Python in a folder, with the words that a shell reads in it."""
        python, *words = shell_words(command, folder)
        assert shlex.split(command)[0] == python
        assert Path(folder, python).absolute().samefile(sys.executable), python
        return self.python(folder, *words)


def _serve() -> None:
    gc.disable()
    _import_all()
    gc.freeze()  # what was imported is not looked at, and so not copied, in each child
    gc.enable()
    for line in sys.stdin:
        jobs = [Job(**fields) for fields in json.loads(line)]
        print(json.dumps(_run(jobs)), flush=True)
    os._exit(0)  # Python would take long to forget all that was imported


def _import_all() -> None:
    """Import what runs import, and compose a configuration once, which imports Hydra's own parts."""
    import importlib
    import pkgutil

    import matplotlib.pyplot  # noqa: F401
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    import sklearn.datasets  # noqa: F401

    import dropsearch
    from dropsearch.config.compose import compose_overrides
    from tests.experiment.one_figure import write_first_figure
    from tests.hydra_within import fit_in
    from tests.mlflow_tables import copy_tables
    from tests.report.conftest import Maker

    for module in pkgutil.walk_packages(dropsearch.__path__, "dropsearch."):
        with suppress(ImportError):  # of packages that are not installed
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    fit_in()
    copy_tables()
    with tempfile.TemporaryDirectory() as folder:
        write_first_figure(Maker().summary(), Path(folder))
    for tracking in ("mlflow", "none"):  # what files merge to is kept for the runs
        compose_overrides(("engine=sequential", "evidence=off", f"tracking={tracking}"))


def _run(jobs: Sequence[Job]) -> list[int]:
    began = looked = time.monotonic()
    pids = [_fork(job) for job in jobs]
    uses = {pid: ProcessorUse(pid) for pid in pids}
    statuses: dict[int, int] = {}
    stopped: set[int] = set()
    while len(statuses) < len(pids):
        for pid, job in zip(pids, jobs, strict=True):
            if pid in statuses:
                continue
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                statuses[pid] = os.waitstatus_to_exitcode(status)
            elif job.kill_after is not None and time.monotonic() - began > job.kill_after:
                os.kill(pid, signal.SIGKILL)
            elif job.stop_by is not None and pid not in stopped and _shows(job.where, job.stop_at):
                stopped.add(pid)
                os.killpg(pid, job.stop_by)
        if time.monotonic() - looked > LOOK:
            looked = time.monotonic()
            for pid in uses.keys() - statuses.keys():
                if uses[pid].stood() > STANDS or (processor_time(pid) or 0.0) > WORKS:
                    os.kill(pid, signal.SIGUSR1)  # it says where it hangs
                    time.sleep(LOOK)
                    os.kill(pid, signal.SIGABRT)
        time.sleep(0.002)
    return [statuses[pid] for pid in pids]


def _shows(file: str, text: str) -> bool:
    return Path(file).exists() and text in Path(file).read_text()


def _fork(job: Job) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        status = _child(job)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _child(job: Job) -> int:
    log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    err = os.open(job.errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if job.errors else log
    for source, target in ((null, 0), (log, 1), (err, 2)):
        os.dup2(source, target)
    if job.stop_by is not None:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    faulthandler.register(signal.SIGUSR1, 2)
    if job.cwd:
        os.chdir(job.cwd)
    if job.kill_at_write is not None:
        _die_at_write(job.kill_at_write, job.where)
    sys.argv = ["dropsearch", *job.overrides]
    exec(job.setup, {})
    from dropsearch.cli import main

    try:
        _python(*job.python) if job.python else main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return int(end.code or 0)
    return 0


def _python(kind: str, *words: str) -> None:
    """Do what `python` does with these words, up to its end."""
    first, *_ = words or ("",)
    sys.path[0] = {"-c": "", "-m": os.getcwd()}.get(kind, str(Path(kind).parent.absolute()))
    try:
        if kind == "-c":
            sys.argv = [kind, *words[1:]]
            exec(compile(first, "<string>", "exec"), {"__name__": "__main__"})
        elif kind == "-m":
            sys.argv = [*words]
            runpy.run_module(first, run_name="__main__", alter_sys=True)
        else:
            sys.argv = [kind, *words]
            runpy.run_path(kind, run_name="__main__")
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


def _die_at_write(count: int, where: str) -> None:
    left, run = count, os.getpid()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "open":
            writes = isinstance(args[1], str) and bool(set(args[1]) & set("wax+"))
        else:
            writes = event in ("os.rename", "os.link", "os.remove", "os.mkdir")
        if writes and isinstance(args[0], str | bytes | os.PathLike) and where in os.fsdecode(args[0]):
            left -= 1
            if left == 0:  # it may be a process that the run has forked
                os.kill(run, signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    _serve()
