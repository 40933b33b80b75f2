"""The feed of a run, seen from a worker that trains for it elsewhere: in another process or on another machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from dropsearch.core.errors import InputError, RunError
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.core.user_errors import described
from dropsearch.training.protocols import Engine


class Channel(Protocol):
    """What a worker and its run say to each other, word by word."""

    def send(self, words: Any, /) -> None:
        """Say something.

        Raises:
            OSError: The other side is gone.
        """
        ...

    def recv(self) -> Any:
        """Wait for what the other side says next.

        Raises:
            EOFError: It is gone.
        """
        ...


class RemoteFeed:
    """The run's feed. Each call is one message; only `tell` does not wait for an answer.

    Args:
        channel: To the run.
        stopped: Whether to stop.
        most_at_once: Maximum number of trials that this worker has open.
    """

    def __init__(self, channel: Channel, stopped: Callable[[], bool], most_at_once: int | None) -> None:
        self._channel, self.cancelled, self.most_at_once = channel, stopped, most_at_once
        self.held = False

    def _answer(self, *words: Any) -> Any:
        self._channel.send(words)
        return self._channel.recv()

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials; wait for them where this worker has none open and there will be some."""
        specs, self.held = self._answer("ask", count)
        return specs

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Report an epoch of several trials; return for each whether it is to be pruned."""
        return self._answer("report", list(reports))

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Tell results."""
        self._channel.send(("tell", list(results)))


def work(make_engine: Callable[[], Engine], channel: Channel, stopped: Callable[[], bool], threads: int = 1) -> None:
    """Train for one feed after the other until the run needs no more, or is gone.

    Args:
        make_engine: Makes what trains, once.
        channel: To the run. It sends the share of each feed's trials that this worker may have open.
        stopped: Whether to stop.
        threads: How many threads torch may use; 0 leaves them as they are.
    """
    if threads:
        torch.set_num_threads(threads)
    try:
        engine = make_engine()
        while True:
            engine.run(RemoteFeed(channel, stopped, channel.recv()))
            channel.send(("done",))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the run is gone, or needs us no more
    except (InputError, RunError) as error:
        channel.send(("failed", error))
    except (SystemExit, KeyboardInterrupt) as error:  # a trial's: signals from outside are ignored here
        channel.send(("dying", described(error)))
    except Exception as error:
        channel.send(("failed", RunError(f"{type(error).__name__}: {error}")))
