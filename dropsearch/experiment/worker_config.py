"""The configuration of a worker that makes its engine anew, and whether one can be had."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable
from pathlib import Path

from dropsearch.config.schema import Config, TrackingConfig

_HARMLESS = ("tqdm", "ipykernel", "IPython", "zmq", "debugpy", "_pydevd_bundle", "dropsearch", "execnet")
"""Packages whose threads wait for a user or a clock, and hold no lock that a fork would copy for ever."""
_NOTEBOOKS = ("IOPub", "Control", "CONTROL", "Subshell", "SHELL", "Dummy-")


def alone(config: Config) -> Config:
    """Return the configuration of a single worker of this run; its files go where those of the run go."""
    own = copy.copy(config)
    own.budget = None
    own.task, own.output_dir = "work", str(Path(config.output_dir).absolute())
    own.engine, own.cluster = copy.copy(config.engine), copy.copy(config.cluster)
    own.engine.processes, own.engine.devices, own.cluster.name = "1", "auto", "none"
    own.tracking = TrackingConfig(name="none")  # a logger that was handed over stays here
    own.study = copy.copy(config.study)
    own.study.storage = None  # an open storage cannot be sent, and no worker writes to it
    return own


def unsafe_threads(alive: Iterable[threading.Thread] = ()) -> tuple[str, ...]:
    """Return the names of the threads beside which this process must not fork: the user's, or those of a compiler.

    A fork copies the thread that asks for it and every lock that another one holds: who waits for one waits for ever.

    Args:
        alive: The threads to judge; those of this process by default.
    """
    found = [each for each in alive or threading.enumerate() if each is not threading.main_thread()]
    return tuple(each.name for each in found if not _is_harmless(each))


def _is_harmless(thread: threading.Thread) -> bool:
    return type(thread).__module__.startswith(_HARMLESS) or thread.name.startswith((*_NOTEBOOKS, "dropsearch"))
