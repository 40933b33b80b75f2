"""The engine that trains arrays, one after another, until a feed is empty."""

from __future__ import annotations

import torch

from dropsearch.core.errors import InputError, RunError
from dropsearch.training.protocols import CheckpointPath, Feed, RowDataSource, TrainerSettings
from dropsearch.training.sequential import ModuleFactory, SequentialEngine, describe_error, one_line
from dropsearch.training.vectorized.partitioned_feed import PartitionedFeed
from dropsearch.training.vectorized.trials import CancelledError, VectorizedTrials, release


class VectorizedEngine:
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
        partitioned = PartitionedFeed(feed, self.width)
        self._run(partitioned)
        if feed.cancelled():
            partitioned.leave()

    def _run(self, partitioned: PartitionedFeed) -> None:
        while not partitioned.cancelled() and not self.problem:
            try:
                if not partitioned.begin():
                    return
                array = VectorizedTrials(
                    self.make_module, self.data, self.settings, partitioned, self.width, self.checkpoint_path
                )
                if array.trial_rows:
                    array.fit()
            except CancelledError:
                return
            except (InputError, RunError):
                raise
            except torch.cuda.OutOfMemoryError as error:
                partitioned.begin_again()
                if self.width == 1:
                    self.problem = f"out of memory: {one_line(error)}"
                self.width = max(self.width // 2, 1)
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                if partitioned.cancelled():  # the user's second Ctrl-C
                    raise
                partitioned.begin_again()
                self.problem = describe_error(error)
            array = None
            release(self.settings.accelerator == "gpu")
        partitioned.admit_all()
        SequentialEngine(self.make_module, self.data, self.settings, self.checkpoint_path).run(partitioned)
