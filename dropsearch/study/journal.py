"""A journal file that survives whatever kills its writers: a signal at any moment, or a full disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def open_journal(path: Path) -> JournalStorage:
    """Open the storage in a journal file, and make the file where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        return JournalStorage(JournalFileBackend(str(path)))
    lock = _KernelLock(path)
    lock.acquire()  # so that the file is mended before it is first read
    lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]  # what it is to inherit from has no public name


class _KernelLock:
    """A lock that the kernel releases when its holder dies, however it dies.

    Optuna's own locks are files that a killed process leaves behind, which stops its successor for 30 s. And a
    process that is killed, or meets a full disk, while it writes leaves half a line: nobody can read what is
    written behind that. So whoever gets the lock, and only he may write, cuts such a line off first.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._path = journal.with_name(journal.name + ".lock")
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        file = self._path.open("ab")
        fcntl.flock(file, fcntl.LOCK_EX)  # type: ignore[union-attr]
        self._file = file
        try:
            _cut_half_line(self._journal)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _cut_half_line(journal: Path) -> None:
    if not journal.exists():
        return
    with journal.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0 or (file.seek(-1, os.SEEK_END), file.read())[1] == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
