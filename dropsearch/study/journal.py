"""A journal file that survives crashes of its writers and a full disk."""

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
    """Open the storage in a journal file; create the file if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        return JournalStorage(JournalFileBackend(str(path)))
    lock = _KernelLock(path)
    lock.acquire()  # repairs the file before its first read
    lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]  # its base class has no public name


class _KernelLock:
    """A lock that the kernel releases when its holder dies.

    Optuna's locks are files, which a killed process leaves behind and which block the next process for 30 s. A process
    that is killed or meets a full disk while writing leaves an incomplete line, which makes later lines unreadable. The
    holder of the lock therefore first removes such a line.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._path = journal.with_name(journal.name + ".lock")
        self._file: IO[bytes] | None = None
        self._identity: tuple[int, int] | None = None
        """Device and inode of the journal, once it exists."""

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
        """Check that the journal is still the same file; a new one would lack all earlier entries."""
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
