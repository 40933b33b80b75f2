"""Atomic file writes: write a temporary file in the same folder, then rename it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dropsearch.core.processes import GONE, started


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path; it replaces `path` when the context exits, or is deleted after an exception.

    Readers see the old file or the new one, also after a crash of this process. Missing folders are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_path(path) as temporary:
        yield temporary
        temporary.replace(path)


@contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and delete it when the context exits if it still exists."""
    _remove_stale(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove temporary files of processes that were killed."""
    for temporary in path.parent.glob(f".{path.name}.*"):
        pid = temporary.name.removeprefix(f".{path.name}.").partition("-")[0]  # SQLite's own journal has a suffix
        if pid.isdigit() and started(int(pid)) == GONE:
            temporary.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 and sync it to disk, so that a crash of the machine leaves the old or the new file.

    Characters that UTF-8 cannot encode, such as undecodable bytes of a path, are written as escapes (``\\udc80``).
    """
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream,
    ):
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
