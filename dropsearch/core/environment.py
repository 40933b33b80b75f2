"""The process environment: standard streams, an unknown user, repeated warnings, and one run at a time."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dropsearch.core.errors import InputError


def prepare_environment() -> None:
    """Repair the environment where it would make an unrelated run fail. Used by the command line only."""
    _open_standard_streams()
    _name_user()
    _disable_warning_errors()
    os.environ["MPLBACKEND"] = "agg"  # figures are only saved; an unknown backend would fail
    streams: Any = sys
    streams.stdout, streams.stderr = TolerantStream(sys.stdout), TolerantStream(sys.stderr)


def _open_standard_streams() -> None:
    """Open closed standard streams (``>&-``): otherwise the next opened file takes their number and receives prints."""
    for number, name, mode in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_WRONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def _name_user() -> None:
    """Set LOGNAME and HOME if the system does not know the user id: libraries need both."""
    try:
        import pwd
    except ImportError:  # Windows
        return
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
            os.environ["LOGNAME"] = f"uid{os.getuid()}"
        os.environ.setdefault("HOME", tempfile.gettempdir())


def _disable_warning_errors() -> None:
    """Show warnings that PYTHONWARNINGS or -W turn into errors: those of libraries would end the run."""
    if any(option.startswith("error") for option in sys.warnoptions):
        os.environ.pop("PYTHONWARNINGS", None)
        sys.warnoptions[:] = [option for option in sys.warnoptions if not option.startswith("error")]
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)  # Python's default


class TolerantStream:
    """A standard stream, such as a pipe (``| head -1``), that drops all output after its first write error."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        """The first write error."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, or drop it after a failure."""
        with self._guarded():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with self._guarded():
            self._stream.flush()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error
            # Discard the buffer, which Python would otherwise write again at exit.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    @property
    def reader_ended(self) -> bool:
        """Whether the stream failed because its reader ended, as with ``| head -1``."""
        return self.failure is not None and self.failure.errno == errno.EPIPE


@contextmanager
def each_warning_once() -> Iterator[None]:
    """Show each warning once while the context lasts, in this process and processes forked later.

    Python resets its record of shown warnings whenever a filter is set, as around each fit.
    """
    shown: set[tuple[str, str, int]] = set()
    show = warnings.showwarning

    def once(message: Any, category: Any, filename: str, lineno: int, *more: Any, **options: Any) -> None:
        seen = (str(message), filename, lineno)
        if seen not in shown:
            shown.add(seen)
            show(message, category, filename, lineno, *more, **options)

    warnings.showwarning = once
    try:
        yield
    finally:
        warnings.showwarning = show


_lock = threading.Lock()
_running: dict[int, str] = {}
"""Name of the thread of the run, by process: a forked process inherits the run of its parent, but does not run it."""


@contextmanager
def one_run() -> Iterator[None]:
    """Refuse a second run in this process until the context exits.

    Raises:
        InputError: A run goes on in this process, in another thread or in this one (user code started another one).
    """
    process, thread = os.getpid(), threading.current_thread().name
    with _lock:
        if process in _running:
            raise InputError(
                "a process runs one search at a time, since trials seed its random generators; one goes on in thread "
                f"{_running[process]}, and thread {thread} starts another: run them one after the other, or each in "
                "its own process"
            )
        _running[process] = thread
    try:
        yield
    finally:
        _running.pop(process, None)
