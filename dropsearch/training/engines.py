"""Registry of engines by name, and the run of one in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dropsearch.core.errors import InputError, close_match
from dropsearch.core.processes import crashes_noted, exits_as_errors
from dropsearch.training.planning.plan import Plan
from dropsearch.training.protocols import CheckpointPath, Engine, Feed, TrainerSettings
from dropsearch.training.sequential import ModuleFactory, SequentialEngine
from dropsearch.training.vectorized.engine import VectorizedEngine

MakeEngine = Callable[[ModuleFactory, Any, TrainerSettings, Plan, CheckpointPath], Engine]
"""Creates an engine from the module factory, data, training settings, plan and checkpoint paths."""


ENGINES: Mapping[str, MakeEngine] = {
    "sequential": lambda make, data, settings, plan, path: SequentialEngine(make, data, settings, path, plan.reason),
    "vectorized": lambda make, data, settings, plan, path: VectorizedEngine(
        make, data.in_rows(), dataclasses.replace(settings, convolutions=plan.convolutions), plan.width, path
    ),
}
"""All engines. To add one, write its file, list it here, and add a file in conf/engine.

`engine=auto` chooses between vectorized and sequential; other engines are used only if selected.
"""


def check_engine(name: str) -> None:
    """Raise `InputError` if there is no engine of this name."""
    known = ("auto", *ENGINES)
    if name not in known:
        raise InputError(f'engine.name must be one of {", ".join(known)}, got "{name}"{close_match(name, known)}')


class InProcessEngine(Engine):
    """Runs an engine in this process: `os._exit` fails its trial, and a crash leaves a note for the next run."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder

    def describe(self, processes: int = 1) -> str:
        """Return the description of several processes that run the engine."""
        return self.engine.describe(processes)

    def run(self, feed: Feed) -> None:
        """Train until the feed has no more trials or is cancelled."""
        with crashes_noted(self.folder), exits_as_errors():
            self.engine.run(feed)

    def close(self) -> None:
        """Release the engine's resources."""
        self.engine.close()
