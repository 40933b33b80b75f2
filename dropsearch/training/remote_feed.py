"""A proxy of the run's feed in a worker process, on this or another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
