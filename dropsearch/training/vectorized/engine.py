"""The vectorized engine: trains many trials at once until a feed is empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from dropsearch.core.errors import InputError, RunError, UnsupportedError
from dropsearch.core.global_state import keeping_generators, process_state_kept
from dropsearch.core.records import TrialSpec
from dropsearch.core.user_errors import described, message_of
from dropsearch.training.feeds import CheckedFeed
from dropsearch.training.protocols import CheckpointPath, DataSource, Engine, Feed, TrainerSettings, describe_engine
from dropsearch.training.sequential import ModuleFactory, SequentialEngine
from dropsearch.training.vectorized.held_once import NotHeldOnceError
from dropsearch.training.vectorized.partitioned_feed import PartitionedFeed
from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.trials import CancelledError, VectorizedTrials, free_gpu_memory


@dataclass(eq=False)
class VectorizedEngine(Engine):
    """Trains the trials of a feed vectorized, at most `width` at a time.

    A trial depends on its own seed only, so it can be restarted with the same result. If memory runs out, the open
    trials restart with half the width; if vectorized training fails for another reason, they restart sequentially.
    Trials that cannot share stacked tensors (see `partition`) train one partition after the other.
    """

    make_module: ModuleFactory
    data: DataSource
    settings: TrainerSettings
    width: int
    checkpoint_path: CheckpointPath = lambda _: None
    failure: str = field(default="", init=False)
    _holds_once: bool = field(default=True, init=False)

    def describe(self, processes: int = 1) -> str:
        """Return the description of several processes that run this engine."""
        device = "cuda" if self.settings.accelerator == "gpu" else "cpu"
        if self.failure:
            return describe_engine("sequential", device, 1, processes=processes, reason=self.failure)
        return describe_engine("vectorized", device, self.width, processes=processes)

    @keeping_generators()
    def run(self, feed: Feed) -> None:
        """Train until the feed has no more trials or is cancelled."""
        partitioned = PartitionedFeed(CheckedFeed(feed), self.width)
        self._run(partitioned)
        if feed.cancelled():
            partitioned.interrupt_waiting()

    def _run(self, partitioned: PartitionedFeed) -> None:
        while not partitioned.cancelled() and not self.failure:
            trials = None
            try:
                if not partitioned.next_partition():
                    return
                source = RowSource(self.make_module, self.data, self.settings, partitioned, self.checkpoint_path)
                trials = VectorizedTrials(source, self.width, holds_once=self._holds_once)
                if trials.stack.trial_rows:
                    with process_state_kept():
                        trials.fit()
                self._train_apart(trials.apart, partitioned)
            except CancelledError:
                partitioned.requeue_open()
                return
            except (InputError, RunError):
                raise
            except torch.cuda.OutOfMemoryError as error:
                partitioned.requeue_open()
                if self.width == 1:
                    self.failure = f"out of memory: {message_of(error)}"
                self.width = max(self.width // 2, 1)
            except BaseException as error:  # user code may raise anything
                if partitioned.cancelled():  # second Ctrl-C
                    raise
                partitioned.requeue_open()
                if isinstance(error, NotHeldOnceError) or (trials is not None and trials.stack.holds_once):
                    self._holds_once = False  # frozen parts may be changed, so each row gets its own
                else:
                    self.failure = str(error) if isinstance(error, UnsupportedError) else described(error)
            trials = None  # free_gpu_memory frees unreferenced objects only
            free_gpu_memory(self.settings.accelerator == "gpu")
        partitioned.admit_all()
        self._sequential().run(partitioned)

    def _train_apart(self, apart: Sequence[tuple[TrialSpec, Exception]], feed: Feed) -> None:
        """Train the trials that left their rows; if one does not fail by itself, vectorized training has failed."""
        for spec, error in apart:
            if feed.cancelled():
                raise CancelledError
            result = self._sequential().train(spec, feed)
            feed.tell([result])
            if result.state != "FAIL":
                self.failure = described(error)

    def _sequential(self) -> SequentialEngine:
        return SequentialEngine(self.make_module, self.data, self.settings, self.checkpoint_path)
