"""Work that is repeated in a thread beside a step of any length."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(action: Callable[[], object], seconds: float, name: str, *, waits: bool = True) -> Iterator[None]:
    """Call `action` in a thread, every `seconds` seconds while the context lasts.

    `action` handles its own errors: the first one that it raises ends the thread. The thread's name begins with
    ``dropsearch-``, by which a fork is known to be safe. With `waits`, the end of the context waits for a call under
    way.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, name=f"dropsearch-{name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        if waits:
            thread.join()
