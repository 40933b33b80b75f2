"""Running an engine in this process, protected from trials that would end the run."""

from __future__ import annotations

from pathlib import Path

from dropsearch.core.crashes import crashes_noted, exits_as_errors
from dropsearch.training.protocols import Engine, Feed


class InProcessEngine:
    """Runs an engine in this process: `os._exit` fails its trial, and a crash leaves a note for the next run.

    Args:
        engine: The engine.
        folder: Folder of crash notes.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder

    @property
    def description(self) -> str:
        """The description of the engine."""
        return self.engine.description

    def describe(self, processes: int) -> str:
        """Return the description of several processes that run the engine."""
        return self.engine.describe(processes)

    def run(self, feed: Feed) -> None:
        """Train until the feed has no more trials or is cancelled."""
        with crashes_noted(self.folder), exits_as_errors():
            self.engine.run(feed)

    def close(self) -> None:
        """Release the engine's resources."""
        self.engine.close()
