"""Files that are whole or not there: written beside their place, and put there at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dropsearch.core.process_id import GONE, started


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a draft to write to; it takes the place of `path` when the context ends well, else it vanishes.

    A reader, or a kill at any moment, meets the old file or the new one. Missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_draft(path) as draft:
        yield draft
        draft.replace(path)


@contextmanager
def temporary_draft(path: Path) -> Iterator[Path]:
    """Yield a draft of `path` that vanishes when the context ends, if it is still there."""
    _clear(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove the drafts of processes that were killed."""
    for draft in path.parent.glob(f".{path.name}.*"):
        pid = draft.name.removeprefix(f".{path.name}.").partition("-")[0]  # SQLite's own journal has a suffix
        if pid.isdigit() and started(int(pid)) == GONE:
            draft.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, so that even a crash of the machine leaves the old file or the new one.

    What no encoding has, such as the bytes of a path that are not UTF-8, is written as its number (``\\udc80``).
    """
    with (
        atomic_write(path) as draft,
        draft.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream,
    ):
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
