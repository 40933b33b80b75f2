"""Messages about steps other than training that make no progress."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dropsearch.core.printable import tell
from dropsearch.core.processor_use import ProcessorUse
from dropsearch.core.repetition import repeating
from dropsearch.core.user_errors import described

QUIET, STALL, LOOK = 60.0, 300.0, 5.0
"""Seconds until an idle process is reported; until a busy one without progress is reported (again after twice that time
and so on); and between two checks."""


@contextmanager
def named_if_still(step: str) -> Iterator[None]:
    """Print a line if this process makes no progress in a step."""
    use, patience = ProcessorUse(os.getpid()), STALL
    began = use.moved

    def look() -> list[str]:
        nonlocal patience
        stood, passed, lines = use.stood(), time.monotonic() - began, []
        if stood >= QUIET and not use.is_named:
            use.is_named = True
            lines.append(
                f"{step} makes no progress: no processor time for {stood:.0f} s; a data loader, or code of the module, "
                "may wait for something that never comes: Ctrl-C stops the run"
            )
        if passed >= patience:
            patience *= 2
            lines.append(f"{step} has taken {passed:.0f} s so far: Ctrl-C stops the run")
        return lines

    with looking(look):
        yield


@contextmanager
def looking(look: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Call `look` every `LOOK` seconds while the context lasts, and print the lines that it returns."""
    shown: set[str] = set()

    def print_lines() -> None:
        try:
            lines = look()
        except Exception as error:
            line = f"checking for progress failed and continues: {described(error)}"
            lines = [] if line in shown else [line]
            shown.add(line)
        for line in lines:
            tell(line)

    with repeating(print_lines, LOOK, "watch"):
        yield
