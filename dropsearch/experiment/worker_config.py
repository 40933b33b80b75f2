"""The configuration of workers that create their engine, and a check for threads that prevent forking."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable
from pathlib import Path

from dropsearch.config.schema import Config, TrackingConfig

_HARMLESS = ("tqdm", "ipykernel", "IPython", "zmq", "debugpy", "_pydevd_bundle", "dropsearch", "execnet")
"""Packages whose threads hold no locks that a fork would copy."""
_NOTEBOOKS = ("IOPub", "Control", "CONTROL", "Subshell", "SHELL", "Dummy-")


def alone(config: Config) -> Config:
    """Return the configuration of a single worker of this run, with the same folders."""
    own = copy.copy(config)
    own.budget = None
    own.task, own.output_dir = "work", str(Path(config.output_dir).absolute())
    own.engine, own.cluster = copy.copy(config.engine), copy.copy(config.cluster)
    own.engine.processes, own.engine.devices, own.cluster.name = "1", "auto", "none"
    own.tracking = TrackingConfig(name="none")  # a logger from Python stays in this process
    own.study = copy.copy(config.study)
    own.study.storage = None  # workers do not use the storage, which cannot be pickled
    own.study.warm_start = None
    return own


def unsafe_threads(alive: Iterable[threading.Thread] = ()) -> tuple[str, ...]:
    """Return the names of threads that make forking unsafe: the user's, or those of a compiler.

    A fork copies only the calling thread, but also locks held by other threads, which are then never released.
    """
    found = [each for each in alive or threading.enumerate() if each is not threading.main_thread()]
    return tuple(each.name for each in found if not _is_harmless(each))


def _is_harmless(thread: threading.Thread) -> bool:
    return type(thread).__module__.startswith(_HARMLESS) or thread.name.startswith((*_NOTEBOOKS, "dropsearch"))
