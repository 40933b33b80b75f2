"""Faults that happen inside a run of the program: `Job.setup` calls `inject`.

Each fault that happens adds a byte to a file, so that the campaign counts what happened and not what was meant to.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

FULL = 28
"""The number of the system's error for a full disk."""


def inject(kind: str, note: str, at: int, every: int = 1, times: int = 1) -> None:
    """Let a fault happen when the program does something for the `at`th time, and again at each `every`th after.

    Args:
        kind: dropped, full or worker.
        note: The file that gets a byte for each fault.
        at: The first time.
        every: How many times lie between two faults.
        times: How many faults.
    """
    wanted = {at + every * number for number in range(times)}
    seen = 0

    def is_due() -> bool:
        nonlocal seen
        seen += 1
        if seen not in wanted:
            return False
        with Path(note).open("ab") as file:
            file.write(b"x")
        return True

    {"dropped": _dropped, "full": _full, "worker": _worker}[kind](is_due)


def _dropped(is_due: Callable[[], bool]) -> None:
    """Drop the connection to the study's database before a statement."""
    from sqlalchemy import Engine, event
    from sqlalchemy.exc import OperationalError

    run = os.getpid()

    def before(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        is_ours = os.getpid() == run and "mlflow" not in str(connection.engine.url)
        if is_ours and is_due():
            raise OperationalError(statement, {}, ConnectionError("server closed the connection unexpectedly"))

    event.listen(Engine, "before_cursor_execute", before)


def _full(is_due: Callable[[], bool]) -> None:
    """Let the disk be full in the middle of a line of the journal."""
    from optuna.storages.journal import JournalFileBackend

    append = JournalFileBackend.append_logs

    def full(self: Any, logs: Any) -> None:
        if is_due():
            with Path(self._file_path).open("ab") as file:
                file.write(b'{"op_code": 4, "worker')
            raise OSError(FULL, "No space left on device")
        append(self, logs)

    JournalFileBackend.append_logs = full


def _worker(is_due: Callable[[], bool]) -> None:
    """Kill a training process when trials are told."""
    from dropsearch.study.store import StudyStore
    from dropsearch.training.worker_forks import WorkerForks

    pids: list[int] = []
    fork, tell = WorkerForks.fork, StudyStore.tell

    def forked(self: WorkerForks) -> Any:
        pid, connection = fork(self)
        pids.append(pid)
        return pid, connection

    def told(self: StudyStore, results: Any) -> None:
        tell(self, results)
        if pids and is_due():
            os.kill(pids.pop(), signal.SIGKILL)

    WorkerForks.fork, StudyStore.tell = forked, told
