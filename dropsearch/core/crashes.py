"""Crash notes: how a process crashed, written for the process that resumes its work."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

from dropsearch.core.processes import is_dead, this_process

_PREFIX, _FIRST = ".crash-", "Fatal Python error: "


@contextmanager
def crashes_noted(folder: Path) -> Iterator[None]:
    """Write a note to a folder if this process crashes, for example by a segmentation fault, within the context."""
    path, was_enabled = folder / f"{_PREFIX}{this_process()}", faulthandler.is_enabled()
    try:
        note = path.open("w")
    except OSError:  # an unwritable folder is reported elsewhere
        yield
        return
    _disable_in_children()
    faulthandler.disable()  # enable() reinstalls handlers only after disable()
    faulthandler.enable(note, all_threads=False)
    try:
        yield
    finally:
        faulthandler.disable()
        if was_enabled and sys.__stderr__ is not None:
            with suppress(OSError, ValueError):
                faulthandler.enable(sys.__stderr__)
        note.close()
        path.unlink(missing_ok=True)


@cache
def _disable_in_children() -> None:
    """Keep a forked process from writing to its parent's note."""
    os.register_at_fork(after_in_child=faulthandler.disable)


def crash_of(folder: Path, process: str) -> str:
    """Return how a dead process crashed, such as `Segmentation fault`; empty if it left no note."""
    try:
        text = (folder / f"{_PREFIX}{process}").read_text(errors="replace")
    except OSError:
        return ""
    return text.partition("\n")[0].removeprefix(_FIRST)


def forget_crashes(folder: Path) -> None:
    """Remove the notes of dead processes."""
    for path in folder.glob(f"{_PREFIX}*"):
        if is_dead(path.name.removeprefix(_PREFIX)):
            path.unlink(missing_ok=True)


@contextmanager
def exits_as_errors() -> Iterator[None]:
    """Turn calls of `os._exit` in this thread into SystemExit, so that the process does not end silently."""
    process, thread, end = os.getpid(), threading.get_ident(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process or threading.get_ident() != thread:
            end(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = end
