"""The process that forks the runs of `forked_runs.py`: it imports everything, and answers what it is asked."""

from __future__ import annotations

import atexit
import faulthandler
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO
from unittest.mock import patch

from dropsearch.core.processes import ProcessorUse, processor_time
from tests.experiment.forked_runs import TINY, Job, rare_garbage

STANDS, WORKS, LOOK = 120.0, 600.0, 1.0
"""Seconds without and with processor time after which a run is taken to hang, however busy the machine is; and between
two looks."""


def serve(place: str = "") -> None:
    gc.disable()
    _import_all()
    rare_garbage()
    if place:
        _serve_each(place)
    else:
        _answer(sys.stdin, sys.stdout)
    os._exit(0)  # Python would take long to forget all that was imported


def _serve_each(place: str) -> None:
    """Fork a process that answers for each connection, until standard input is closed."""
    with socket.socket(socket.AF_UNIX) as listener:
        Path(place).unlink(missing_ok=True)
        listener.bind(place)
        listener.listen()
        print("listening", flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(connection.makefile("r"), connection.makefile("w"))
                return
            connection.close()


def _answer(asked: TextIO, answers: TextIO) -> None:
    for line in asked:
        jobs = [Job(**fields) for fields in json.loads(line)]
        print(json.dumps(_run(jobs)), file=answers, flush=True)


def _import_all() -> None:
    """Import what runs import, and compose a configuration once, which imports Hydra's own parts."""
    import importlib
    import pkgutil

    import matplotlib.pyplot  # noqa: F401
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch

    import dropsearch
    from dropsearch.config.compose import compose_overrides
    from tests.experiment.one_figure import write_first_figure
    from tests.hydra_within import fit_in
    from tests.lightning_within import fit_in as fit_in_lightning
    from tests.mlflow_tables import copy_tables
    from tests.report.conftest import Maker

    for module in pkgutil.walk_packages(dropsearch.__path__, "dropsearch."):
        with suppress(ImportError):  # of packages that are not installed
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    fit_in()
    fit_in_lightning()
    copy_tables()
    with tempfile.TemporaryDirectory() as folder:
        write_first_figure(Maker().summary(), Path(folder))
        if not torch.backends.cuda.is_built():  # where it is, a process that has trained cannot be forked
            _run_once(Path(folder))
    for tracking in ("mlflow", "none"):  # what files merge to is kept for the runs
        compose_overrides(("engine=sequential", "evidence=off", f"tracking={tracking}"))


def _run_once(folder: Path) -> None:
    """Search once: what libraries prepare at their first use, a third of the time of a small run, is there for all."""
    from dropsearch.config.compose import compose_overrides
    from dropsearch.experiment.tasks.search import searched
    from tests.experiment.one_figure import PLACE, write_first_figure

    small = ("arms=[none,dropout]", "study.n_trials=2", "confirm.top_k=1", "confirm.seeds=2", "engine=sequential")
    given = (*TINY, *small, "tracking=none", "evidence=off", f"output_dir={folder / 'out'}")
    with patch(PLACE, write_first_figure), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        searched(compose_overrides(given))


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
    serve(*sys.argv[1:])
