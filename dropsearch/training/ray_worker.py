"""A Ray actor that runs an engine in a thread and delivers its messages in batches."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dropsearch.training.protocols import Engine
from dropsearch.training.remote_feed import work

MakeEngine = Callable[[Path], Engine]


class _Queues:
    """An actor's end of the channel, which queues messages until the run fetches them.

    The weights of trials go with their results, since the run may not see an actor's files.
    """

    def __init__(self, here: Path, folder: Path) -> None:
        self._here, self._folder = here, folder
        self.received: queue.Queue[Any] = queue.Queue()
        self.sent: queue.Queue[Any] = queue.Queue()

    def recv(self) -> Any:
        answer = self.received.get()
        if answer is _CLOSED:
            raise EOFError
        return answer

    def send(self, words: Any) -> None:
        if words[0] == "tell":
            words = ("tell", [self._with_weights(result) for result in words[1]])
        self.sent.put(words)

    def _with_weights(self, result: Any) -> Any:
        if not result.checkpoint:
            return result
        path = Path(result.checkpoint)
        there = self._folder / path.relative_to(self._here)
        self.sent.put(("files", there, path.read_bytes()))
        path.unlink()
        return replace(result, checkpoint=str(there))


_CLOSED = object()
CLOSING_SECONDS = 10.0
"""Seconds that the engine may take to reach its next message when the worker is closed."""
NEEDS_NO_ANSWER = ("tell", "files")


class Worker:
    """The actor: an engine in a separate thread, whose messages the run fetches in batches."""

    def __init__(self, make_engine: MakeEngine, folder: Path) -> None:
        here = self._here = Path(tempfile.mkdtemp(prefix="dropsearch-weights-"))
        self._queues, self._stopped = _Queues(here, folder), threading.Event()
        given = (lambda: make_engine(here), self._queues, self._stopped.is_set)
        self._thread = threading.Thread(target=work, args=given, daemon=True)
        self._thread.start()

    def exchange(self, *answer: Any) -> list[Any]:
        """Receive the answer to the last message, if any; return messages up to the next that needs an answer."""
        for each in answer:
            self._queues.received.put(each)
        messages = [self._queues.sent.get()]
        while messages[-1][0] in NEEDS_NO_ANSWER:
            messages.append(self._queues.sent.get())
        return messages

    def stop(self, stopped: bool) -> None:
        """Set whether to stop training."""
        (self._stopped.set if stopped else self._stopped.clear)()

    def close(self) -> None:
        """End the engine at its next message, and remove the folder for weights."""
        self._queues.received.put(_CLOSED)
        self._thread.join(CLOSING_SECONDS)
        shutil.rmtree(self._here, ignore_errors=True)
