"""What a process needs from its environment, put right where it is missing: streams, a user, calm warnings."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def prepare_environment() -> None:
    """Put right what would end a run although it has nothing to do with it; for the command line alone."""
    _open_standard_streams()
    _name_user()
    _calm_warnings()
    os.environ["MPLBACKEND"] = "agg"  # figures are only written; a backend that does not exist would end the run
    streams: Any = sys
    streams.stdout, streams.stderr = LastingStream(sys.stdout), LastingStream(sys.stderr)


def _open_standard_streams() -> None:
    """Open what is closed (``>&-``): files that are opened later would get its number, and all that is printed."""
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
    """Name a user that the system does not know, and give him a home: libraries ask for both."""
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


def _calm_warnings() -> None:
    """Show warnings that the environment wants as errors: those of libraries would end the run."""
    if any(option.startswith("error") for option in sys.warnoptions):
        os.environ.pop("PYTHONWARNINGS", None)
        sys.warnoptions[:] = [option for option in sys.warnoptions if not option.startswith("error")]
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)  # as Python has it by default


class LastingStream:
    """A standard stream that fails once, silently, where it cannot be written any more; what follows is dropped.

    Args:
        stream: The stream, such as a pipe whose reader ends (``| head -1``) or a file on a full disk.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        """Why it cannot be written."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, as far as the stream takes it."""
        with self._guarded():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        with self._guarded():
            self._stream.flush()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error
            # What is buffered goes nowhere, else Python would try to write it again at its end.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    @property
    def reader_ended(self) -> bool:
        """Whether the stream failed since its reader has ended, as behind ``| head -1``."""
        return self.failure is not None and self.failure.errno == errno.EPIPE
