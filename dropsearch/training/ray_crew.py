"""Workers as Ray actors, one per GPU or core of a cluster."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from dropsearch.core.atomic_io import atomic_write
from dropsearch.core.errors import InputError, require
from dropsearch.core.user_errors import message_of
from dropsearch.training.crews import Crew
from dropsearch.training.multiprocess import CrewEngine
from dropsearch.training.protocols import Engine, Feed
from dropsearch.training.worker import MakeEngine, Worker

FORGIVEN = 2
"""Number of actor deaths before a trial is suspected, since machines of a cluster may be preempted."""
LOOK_SECONDS = 2.0
"""Interval of queries for the capacity of the cluster, in seconds."""
LINE_SECONDS = 60.0
CLOSING_SECONDS = 3.0
EXCLUDED = ["outputs", "data", ".git", ".venv", "mlruns", "mlartifacts", "__pycache__", "*.ckpt", "*.db", "*.journal"]
"""Files of the working folder that actors do not get: outputs of runs, and data, which uses the object store."""


def _ray() -> Any:
    """Return the package `ray`, which is imported only with a cluster."""
    return import_module("ray")


def connect(address: str, cpus: int, folder: Path | None) -> None:
    """Connect to a Ray cluster or start one on this machine; do nothing if already connected.

    The address is local (start one), auto (that of this machine) or the cluster's. Actors get the user's code from
    `folder`. Raises `InputError` without Ray or a cluster.
    """
    require("cluster=ray", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local":  # read at import; otherwise Ray replaces 127.0.0.1 by the host's address
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if _ray().is_initialized():
        return
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "namespace": "dropsearch"}
    if folder is not None:
        options["runtime_env"] = {"working_dir": str(folder), "excludes": EXCLUDED}
    if address == "local":
        options |= {"num_cpus": cpus, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        _ray().init(address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f'cluster.address must be a reachable Ray cluster, got "{address}" ({message_of(error)}): '
            "start one with `ray start --head`, or set cluster.address=local"
        ) from error


def shared(value: Any) -> Any:
    """Put a value into the object store, from which each node fetches it once; return its reference."""
    return _ray().put(value)


def fetched(reference: Any) -> Any:
    """Return a value from the object store of this node."""
    return _ray().get(reference)


class _Channel:
    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.pending: Any = None
        self._messages: deque[Any] = deque()
        self.has_arrived = False
        self.death: Any = ""
        self.trials = 0

    def send(self, answer: Any) -> None:
        self.pending = self.actor.exchange.remote(answer)

    @property
    def is_ready(self) -> bool:
        return bool(self._messages)

    def recv(self) -> Any:
        if not self._messages:
            pending, self.pending = self.pending, None
            try:
                self._messages += _ray().get(pending)
            except _ray().exceptions.RayError as error:
                self.pending = None
                self.death = error
                raise EOFError from error
            self.has_arrived = True
        message = self._messages.popleft()
        if message[0] == "dying":
            self.death = message[1]
            _ray().kill(self.actor)
            raise EOFError
        if message[0] == "files":
            with atomic_write(message[1]) as temporary:
                temporary.write_bytes(message[2])
            return self.recv()
        if message[0] == "tell":
            self.trials += len(message[1])
        return message


class RayCrew(Crew):
    """Actors in a connected Ray cluster, with a GPU each if `on_gpu`.

    There are `count` of them; None for one per GPU or core, including those added later.
    """

    forgiven = FORGIVEN

    def __init__(self, make_engine: MakeEngine, folder: Path, count: int | None, on_gpu: bool) -> None:
        self._count, self._on_gpu = count, on_gpu
        self._room, self._looked = 1, 0.0
        options: Mapping[str, Any] = {"num_cpus": 1, "num_gpus": int(on_gpu), "max_concurrency": 2, "max_restarts": 0}
        self._actors = _ray().remote(Worker).options(**options)
        # The factory contains the user's code and a reference to the data; it is sent to each node once.
        self._given = (_ray().put(make_engine), folder)
        self._channels: list[_Channel] = []
        self._printed = time.monotonic()
        self._stopped = False

    def wanted(self) -> int:
        """Return the requested number of actors, or the capacity of the cluster."""
        if self._count is not None:
            return self._count
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            self._room = max(int(_ray().cluster_resources().get("GPU" if self._on_gpu else "CPU", 0)), 1)
        return self._room

    def start(self) -> _Channel:
        """Request an actor, which starts as soon as the cluster has capacity."""
        channel = _Channel(self._actors.remote(*self._given))
        if self._stopped:
            channel.actor.stop.remote(True)
        self._channels.append(channel)
        return channel

    def ready(self, channels: Sequence[_Channel], seconds: float) -> list[_Channel]:
        """Wait for a message or the end of an actor."""
        self._say_speeds()
        with_messages = [channel for channel in channels if channel.is_ready]
        pending = {channel.pending: channel for channel in channels if channel.pending is not None}
        done = self._done([*pending], 1, 0 if with_messages else seconds)
        if done:  # others may be ready as well
            done = self._done([*pending], len(pending), 0)
        return [*with_messages, *(pending[each] for each in done)]

    def _done(self, pending: list[Any], most: int, seconds: float) -> list[Any]:
        return _ray().wait(pending, num_returns=most, timeout=seconds)[0] if pending else []

    def has_arrived(self, channel: _Channel) -> bool:
        """Return whether an actor has sent a message."""
        return channel.has_arrived

    def ending(self, channel: _Channel) -> tuple[str, bool]:
        """Return Ray's message about an actor's death, and whether a trial may be the cause (its node is alive)."""
        death = " ".join(str(channel.death).split())
        self._channels.remove(channel)
        node_died = "node" in death.lower() and any(
            word in death.lower() for word in ("dead", "died", "terminated", "lost")
        )
        return f"Ray says {death[:200]}", not node_died

    def kill(self, channel: _Channel) -> None:
        """Kill an actor."""
        _ray().kill(channel.actor)

    def stop(self, stopped: bool) -> None:
        """Tell all actors whether to stop training."""
        if stopped != self._stopped:
            self._stopped = stopped
            for channel in self._channels:
                channel.actor.stop.remote(stopped)

    def close(self) -> None:
        """End the actors."""
        if _ray().is_initialized():
            closing = [channel.actor.close.remote() for channel in self._channels if channel.has_arrived]
            self._done(closing, len(closing), CLOSING_SECONDS)
            for channel in self._channels:
                _ray().kill(channel.actor)
        self._channels.clear()

    def _say_speeds(self) -> None:
        now = time.monotonic()
        if now - self._printed < LINE_SECONDS:
            return
        print(speeds([channel.trials for channel in self._channels], now - self._printed), file=sys.stderr, flush=True)
        self._printed = now
        for channel in self._channels:
            channel.trials = 0


def speeds(trials: Iterable[int], seconds: float) -> str:
    """Return a text with the trials per minute of the workers.

    Example:
        >>> speeds([30, 12, 31], 60.0)
        '3 workers: 73 trials a minute; each 12 to 31, on average 24.3'
    """
    each = [60 * count / seconds for count in trials]
    if not each:
        return "0 workers: waiting for the cluster"
    return (
        f"{len(each)} workers: {sum(each):.0f} trials a minute; each {min(each):.0f} to {max(each):.0f}, "
        f"on average {sum(each) / len(each):.1f}"
    )


def has_gpus() -> bool:
    """Return whether a node of the cluster has a GPU."""
    return _ray().cluster_resources().get("GPU", 0) > 0


class RayEngine(Engine):
    """Trains the trials of a feed by actors of a Ray cluster.

    It connects at the first training, after the tracker's process is forked, since Ray starts threads.
    """

    def __init__(self, open_crew: Callable[[], RayCrew], describe: Callable[[int], str], address: str) -> None:
        self._open_crew, self._describe, self._address = open_crew, describe, address
        self._engine: CrewEngine | None = None

    def describe(self, processes: int = 1) -> str:
        """Return the description of the workers that there are."""
        return f"Ray cluster {self._address}: {self._describe(self._engine.count if self._engine else 1)} each"

    def run(self, feed: Feed) -> None:
        """Train until the feed has no more trials or is cancelled."""
        if self._engine is None:
            self._engine = CrewEngine(self._open_crew(), self._describe)
        self._engine.run(feed)

    def close(self) -> None:
        """End the actors."""
        if self._engine is not None:
            self._engine.close()
