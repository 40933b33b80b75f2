"""Runs of the program in forked processes that die when they are told to.

One process (`fork_server.py`) imports everything, which takes seconds, and forks a child for each run.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
LONGEST_SOCKET = 100
"""Characters of the path of a socket."""
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


def rare_garbage() -> None:
    """Look for garbage again, seldom, and not in what was imported, which children would copy for it."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()


def shell_words(command: str, folder: Path) -> list[str]:
    """Return the words that a shell reads in a command."""
    read = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], cwd=folder, capture_output=True, check=True)
    return os.fsdecode(read.stdout).split("\0")[:-1]


class RunForker:
    """The process that forks the runs. Use as a context manager.

    Args:
        place: A folder in which several processes of one session of tests meet, which then share what was imported.
    """

    def __init__(self, place: Path | None = None) -> None:
        self._socket = None if place is None else place / "forks"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> RunForker:
        if self._socket is None or len(str(self._socket)) > LONGEST_SOCKET:
            self._process = self._started()
            assert self._process.stdin
            assert self._process.stdout
            self._asks, self._answers = self._process.stdin, self._process.stdout
            return self
        with self._socket.with_name("forks.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            connection = _connected(self._socket)
            if connection is None:
                self._process = self._started(str(self._socket))
                assert self._process.stdout
                self._process.stdout.readline()  # it listens
                connection = _connected(self._socket)
        assert connection, "the process that forks the runs has died"
        with connection:
            self._asks, self._answers = connection.makefile("w"), connection.makefile("r")
        return self

    def _started(self, *words: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": paths}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.experiment.fork_server", *words],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asks.close()
        self._answers.close()
        if self._process is not None:
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()

    def run(self, *jobs: Job) -> list[int]:
        """Run jobs side by side; return their exit statuses, -9 for one that was killed, -6 for one that hung."""
        self._asks.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self._asks.flush()
        answer = self._answers.readline()
        if not answer:
            raise RuntimeError("the process that forks the runs has died")
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


def _connected(place: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(place))
    except OSError:  # no process listens at this address
        connection.close()
        return None
    return connection
