"""Steps beside the training that stand still: the terminal names them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dropsearch.core.processor_use import ProcessorUse
from dropsearch.core.user_errors import described

QUIET, STALL, LOOK = 60.0, 300.0, 5.0
"""Seconds without any sign of a process until it is named; until what uses the processor and gets no further is named
(again after twice that time, and so on); and between two looks."""


@contextmanager
def named_if_still(step: str) -> Iterator[None]:
    """Say in a line where this process gets no further in a step.

    Args:
        step: What it does, such as "reading the data".
    """
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
    """Look every `LOOK` seconds while the context lasts, and print the lines that a look returns."""
    stop = threading.Event()

    def keep_looking() -> None:
        told: set[str] = set()
        while not stop.wait(LOOK):
            try:
                lines = look()
            except Exception as error:
                line = f"the watch over what stands still failed and goes on: {described(error)}"
                lines = [] if line in told else [line]
                told.add(line)
            for line in lines:
                print(line, file=sys.stderr, flush=True)

    thread = threading.Thread(target=keep_looking, name="dropsearch-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
