"""A journal file that survives whatever kills its writers: a signal at any moment, or a full disk."""

from __future__ import annotations

import errno
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
        self._identity: tuple[int, int] | None = None
        """Device and number of the journal's file, once it is there."""

    def acquire(self) -> bool:
        file = self._path.open("ab")
        fcntl.flock(file, fcntl.LOCK_EX)  # type: ignore[union-attr]
        self._file = file
        try:
            self._check_same_file()
            _cut_half_line(self._journal)
        except BaseException:
            self.release()
            raise
        return True

    def _check_same_file(self) -> None:
        """Check that the journal is the file that it was: a new one would lack all that was written before.

        Raises:
            FileNotFoundError: It was deleted, renamed or replaced.
        """
        found = self._journal.stat() if self._journal.exists() else None
        identity = (found.st_dev, found.st_ino) if found else None
        if self._identity is not None and identity != self._identity:
            raise FileNotFoundError(
                errno.ENOENT,
                "it was deleted, renamed or replaced while the run used it; put it back",
                str(self._journal),
            )
        self._identity = identity

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
