"""The engine that trains arrays, one after another, until a feed is empty."""

from __future__ import annotations

import torch

from dropsearch.errors import InputError, RunError
from dropsearch.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.training.alone import AloneEngine, ModuleFactory, one_line, told
from dropsearch.training.array import Array, CancelledError, release
from dropsearch.training.feed import CheckpointPath, Feed, RowDataSource, TrainerSettings


class ArrayEngine:
    """Trains the trials of a feed as rows of an array.

    Trials are functions of their own seeds, so one that is begun again gives what it would have given: an array
    that does not fit into memory is begun again at half the width, and one that fails altogether alone.

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
        again = _Again(feed)
        while not feed.cancelled() and not self.problem:
            try:
                array = Array(self.make_module, self.data, self.settings, again, self.width, self.checkpoint_path)
                if not array.slots:
                    return
                array.fit()
            except CancelledError:
                return
            except (InputError, RunError):
                raise
            except torch.cuda.OutOfMemoryError as error:
                again.begin_again()
                if self.width == 1:
                    self.problem = f"out of memory: {one_line(error)}"
                self.width = max(self.width // 2, 1)
            except Exception as error:
                again.begin_again()
                self.problem = told(error)
            array = None
            release(self.settings.accelerator == "gpu")
        AloneEngine(self.make_module, self.data, self.settings, self.checkpoint_path).run(again)


class _Again:
    """A feed that hands out trials which have to begin again before it asks for new ones."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._open: dict[str, TrialSpec] = {}
        self._waiting: list[TrialSpec] = []
        self.most_at_once = feed.most_at_once

    def begin_again(self) -> None:
        """Take back the trials that were asked for and not told."""
        self._waiting[:0] = self._open.values()
        self._open.clear()

    def ask(self) -> TrialSpec | None:
        spec = self._waiting.pop(0) if self._waiting else self._feed.ask()
        if spec is not None:
            self._open[spec.key] = spec
        return spec

    def report(self, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        return self._feed.report(spec, metrics)

    def tell(self, result: TrialResult) -> None:
        self._open.pop(result.spec.key, None)
        self._feed.tell(result)

    def cancelled(self) -> bool:
        return self._feed.cancelled()
