"""Where studies are kept: a journal file, or any storage that Optuna knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from dropsearch.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class _KernelLock:
    """A lock that the kernel releases when its holder dies, however it dies.

    Optuna's own locks are files that a killed process leaves behind, which stops its successor for 30 s.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        self._file = self._path.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # type: ignore[union-attr]
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def open_storage(url: str | None, journal: Path) -> BaseStorage:
    """Open the storage of a study, and make it where there is none.

    Args:
        url: An Optuna storage URL, or the path of a journal file; None for `journal`.
        journal: The journal file to use by default.

    Raises:
        InputError: It cannot be opened, or holds something else.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None or "://" not in url:
        return _open_journal(Path(url) if url else journal)
    try:
        return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {})
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f'study.storage must be an Optuna storage that can be opened, got "{url}" ({reason}): '
            "give another URL, or leave study.storage out for a journal file in output_dir"
        ) from error


def storage_exists(url: str | None, journal: Path) -> bool:
    """Return whether there may be studies to continue: a URL counts as one, a journal that is not there not."""
    if url is not None and "://" in url:
        return True
    return (Path(url) if url else journal).exists()


def _open_journal(path: Path) -> BaseStorage:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _KernelLock(path.with_name(path.name + ".lock")) if fcntl else None
        if path.exists():
            _mend_journal(path, lock)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'study.storage must be a journal file that Optuna wrote, got "{path}" ({error}): '
            "name another file, or move this one away"
        ) from error


def _mend_journal(path: Path, lock: _KernelLock | None) -> None:
    """Check that a file is a journal, and cut off a last line that a killed process left half written."""
    if lock:
        lock.acquire()
    try:
        with path.open("r+b") as file:
            _check_first_line(file.readline())
            file.seek(0)
            content = file.read()
            if content and not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
    finally:
        if lock:
            lock.release()


def _check_first_line(line: bytes) -> None:
    if not line.endswith(b"\n"):
        if line[:1] not in (b"", b"{"):
            raise ValueError("it does not begin with a journal entry")
        return
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or "op_code" not in entry:
        raise ValueError("it does not begin with a journal entry")
