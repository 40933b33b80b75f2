"""A worker of a run: an engine that trains for a proxy of the run's feed, in another process or a Ray actor."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from dropsearch.core.errors import InputError, RunError
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.core.user_errors import described
from dropsearch.training.protocols import Engine


class Channel(Protocol):
    """A bidirectional message channel between a worker and its run."""

    def send(self, words: Any, /) -> None:
        """Send a message; raise OSError if the other side has closed the channel."""
        ...

    def recv(self) -> Any:
        """Wait for the next message; raise EOFError if the other side has closed the channel."""
        ...


class RunEndedError(RunError):
    """The run of a worker has ended. Engines pass it on, as they do any `RunError`."""


@contextmanager
def _while_the_run_lives() -> Iterator[None]:
    """Raise `RunEndedError` if the channel is closed; the same errors of user code are its own."""
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        raise RunEndedError("the run has ended") from error


class RemoteFeed:
    """The run's feed. Each call is one message; only `tell` does not wait for an answer."""

    def __init__(self, channel: Channel, stopped: Callable[[], bool], most_at_once: int | None) -> None:
        self._channel, self.cancelled, self.most_at_once = channel, stopped, most_at_once
        self.held = False

    def _answer(self, *words: Any) -> Any:
        with _while_the_run_lives():
            self._channel.send(words)
            return self._channel.recv()

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials; wait for them if this worker has none open and more will become available."""
        specs, self.held = self._answer("ask", count)
        return specs

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Report an epoch of several trials; return for each whether it should be pruned."""
        return self._answer("report", list(reports))

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Send results."""
        with _while_the_run_lives():
            self._channel.send(("tell", list(results)))


def work(make_engine: Callable[[], Engine], channel: Channel, stopped: Callable[[], bool], threads: int = 1) -> None:
    """Train for one feed after the other until the run needs no more, or is gone.

    For each feed the run sends the maximum number of open trials. 0 threads leave torch's number unchanged.
    """
    if threads:
        torch.set_num_threads(threads)
    try:
        engine = make_engine()
        while True:
            with _while_the_run_lives():
                most_at_once = channel.recv()
            engine.run(RemoteFeed(channel, stopped, most_at_once))
            with _while_the_run_lives():
                channel.send(("done",))
    except RunEndedError:
        pass
    except InputError as error:
        channel.send(("failed", InputError(str(error))))
    except RunError as error:
        channel.send(("failed", RunError(str(error))))
    except (SystemExit, KeyboardInterrupt) as error:  # a trial's: signals from outside are ignored here
        channel.send(("dying", described(error)))
    except Exception as error:
        channel.send(("failed", RunError(f"a training process failed ({described(error)})")))


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
