"""The engine that trains arrays, one after another, until a feed is empty."""

from __future__ import annotations

import torch

from dropsearch.core.errors import InputError, RunError
from dropsearch.training.protocols import CheckpointPath, Feed, RowDataSource, TrainerSettings
from dropsearch.training.sequential import AloneEngine, ModuleFactory, one_line, told
from dropsearch.training.vectorized.partitioned_feed import WaitingRoom
from dropsearch.training.vectorized.trials import Array, CancelledError, release


class ArrayEngine:
    """Trains the trials of a feed as rows of an array.

    Trials are functions of their own seeds, so one that is begun again gives what it would have given: an array
    that does not fit into memory is begun again at half the width, and one that fails altogether alone. Where trials
    differ in more than rows of one array may, each array holds those of one partition, and the others wait.

    Args:
        make_module: Builds a trial's module.
        data: Where batches come from; its loaders tell the order of an epoch.
        settings: What all trials share.
        width: How many trials train at once, at most.
        checkpoint_path: Where the weights of a trial's best epoch go.
    """

    def __init__(
        self,
        make_module: ModuleFactory,
        data: RowDataSource,
        settings: TrainerSettings,
        width: int,
        checkpoint_path: CheckpointPath = lambda _: None,
    ) -> None:
        self.make_module, self.data, self.settings = make_module, data, settings
        self.width, self.checkpoint_path = width, checkpoint_path
        self.problem = ""

    @property
    def description(self) -> str:
        """What trains, how wide, and where."""
        where = "cuda" if self.settings.accelerator == "gpu" else "cpu"
        return f"alone on {where}: {self.problem}" if self.problem else f"array of {self.width} on {where}"

    def close(self) -> None:
        """Hold nothing between runs, so do nothing."""

    def run(self, feed: Feed) -> None:
        """Train until the feed has no more trials or is cancelled."""
        room = WaitingRoom(feed, self.width)
        self._run(room)
        if feed.cancelled():
            room.leave()

    def _run(self, room: WaitingRoom) -> None:
        while not room.cancelled() and not self.problem:
            try:
                if not room.begin():
                    return
                array = Array(self.make_module, self.data, self.settings, room, self.width, self.checkpoint_path)
                if array.slots:
                    array.fit()
            except CancelledError:
                return
            except (InputError, RunError):
                raise
            except torch.cuda.OutOfMemoryError as error:
                room.begin_again()
                if self.width == 1:
                    self.problem = f"out of memory: {one_line(error)}"
                self.width = max(self.width // 2, 1)
            except Exception as error:
                room.begin_again()
                self.problem = told(error)
            array = None
            release(self.settings.accelerator == "gpu")
        room.admit_all()
        AloneEngine(self.make_module, self.data, self.settings, self.checkpoint_path).run(room)
