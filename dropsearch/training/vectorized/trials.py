"""Many trials at once, as rows of stacked tensors.

An epoch of `VectorizedTrials` is one epoch of every row, and each row counts the epochs of its own trial. When a trial
ends, its row gets the next trial of the feed. If the feed is empty, the stacked tensors become narrower; they
become wider again if the feed only waited for other trials.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Iterator, Mapping

import torch

from dropsearch.core.errors import UnsupportedError
from dropsearch.core.records import EpochMetrics, TrialSpec
from dropsearch.training.epoch_metrics import diverged, epoch_metrics
from dropsearch.training.protocols import INTERRUPTED
from dropsearch.training.trainers import quiet_lightning
from dropsearch.training.vectorized.cuda_graph import WARMUP_RUNS
from dropsearch.training.vectorized.device_step import uses_cuda_graphs
from dropsearch.training.vectorized.row_batches import LockstepBatches, StepBatches
from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.trial_row import require_a_row
from dropsearch.training.vectorized.trial_stack import TrialStack


class CancelledError(Exception):
    """The feed was cancelled, and the open trials were recorded as interrupted."""


class VectorizedTrials:
    """Trains the trials of a feed, `width` at a time; `stack` holds the current ones.

    All of them are of one partition (see `partitioned_feed`).
    """

    def __init__(self, source: RowSource, width: int, *, holds_once: bool = True) -> None:
        self.source, self.settings, self.feed = source, source.settings, source.feed
        self.stack = TrialStack(source, width, holds_once=holds_once)
        self.apart: list[tuple[TrialSpec, Exception]] = []
        """Trials whose rows raised an error by their values. They are not told: they are to train by themselves."""
        self._ended = 0
        self._is_warm = False

    def fit(self) -> None:
        """Train until the feed is empty and all trials have ended."""
        stack = self.stack
        with quiet_lightning(), stack.runner.ready():
            try:
                while stack.trial_rows:
                    self.begin_epoch()
                    for taken in stack.batches.steps():
                        self.train(taken)
                    self._end_epoch()
            finally:
                stack.batches.close()

    def seconds_per_step(self, steps: int) -> float:
        """Train all rows for a few steps and return the duration of one, including the reading of its batches.

        Warm-up and capture of CUDA graphs are not timed.
        """
        stack, times = self.stack, list[float]()
        begun: Iterator[StepBatches] = iter(())
        with stack.runner.ready():
            untimed = WARMUP_RUNS + 1 if uses_cuda_graphs(stack.rows.flat.device) and not self._is_warm else 0
            self._is_warm = True
            empty = 0
            while len(times) < untimed + steps:
                started = time.perf_counter()
                taken = next(begun, None)
                if taken is None:
                    empty += 1
                    if empty > 2 and not times:
                        raise UnsupportedError("the training loader yields no batches")
                    self.begin_epoch()
                    begun = stack.batches.steps()
                    continue
                self.train(taken)
                if stack.rows.flat.is_cuda:
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - started)
        # The time of reading varies between steps; steps on examples in memory are only delayed by other load.
        found = times[untimed:]
        return statistics.median(found) if isinstance(stack.batches, LockstepBatches) else min(found)

    def begin_epoch(self) -> None:
        """Run the hooks of the rows and reset the sums of logged values."""
        stack = self.stack
        if stack.row_modules is not None:
            stack.row_modules.begin_epoch(stack.trial_rows)
        stack.step.begin_epoch(stack.trial_rows)

    def train(self, taken: StepBatches) -> None:
        """Train the rows for a step; raise `CancelledError` if the feed is cancelled."""
        rows = self.stack.trial_rows
        self.stack.step.run(rows, taken)
        if self.feed.cancelled():
            self.feed.tell([self.source.result(rows[row], "FAIL", INTERRUPTED) for row in self.stack.busy])
            rows.clear()
            raise CancelledError

    def _end_epoch(self) -> None:
        """Evaluate every row with dropout off, report the metrics, and replace the trials that ended."""
        stack = self.stack
        self._end_failed()
        ended: list[int] = []
        if stack.busy:
            as_trained, found = stack.step.logs.losses(), stack.evaluated()
            stack.rows.require_shared_unchanged()
            stack.runner.require_unchanged()
            self._end_failed()  # rows whose validation loader raised
            ended = self._report(
                {
                    row: epoch_metrics(
                        stack.trial_rows[row].epoch,
                        as_trained[row],
                        found.part.get(row, {}),
                        found.val[row],
                        self.settings.monitor,
                        found.trained[row],
                    )
                    for row in stack.busy
                }
            )
            self._end_failed()  # those whose last hooks raised
        stack.replace(ended)

    def _end_failed(self) -> None:
        """End the trials whose loaders raised as failed, and set those apart whose modules raised.

        If more trials are set apart than ended, the error of a module is raised.
        """
        trial_rows = self.stack.trial_rows
        require_a_row(trial_rows)
        for trial_row in trial_rows:
            if trial_row.error is not None and not trial_row.is_idle:
                self.apart.append((trial_row.spec, trial_row.error))
                trial_row.is_idle = True
        if len(self.apart) > self._ended + len(trial_rows):
            raise self.apart[0][1]
        failed = [each for each in trial_rows if each.failure and not each.is_idle]
        if failed:
            self.feed.tell([self.source.result(trial_row, "FAIL", trial_row.failure) for trial_row in failed])
        for trial_row in failed:
            trial_row.is_idle = True

    def _report(self, metrics: Mapping[int, EpochMetrics]) -> list[int]:
        """Report an epoch of each row and tell the trials that ended, in the order of their rows; return these rows."""
        stack, trial_rows = self.stack, self.stack.trial_rows
        results, reported = {}, []
        for row, point in metrics.items():
            trial_row = trial_rows[row]
            least = trial_row.least_objective
            trial_row.curve.append(point)
            trial_row.epoch += 1
            if not math.isfinite(point.objective) or not math.isfinite(point.train_loss_as_trained):
                results[row] = self.source.result(trial_row, "FAIL", diverged(point, self.settings.monitor))
                continue
            if point.objective < least and trial_row.keeps_best:
                trial_row.best = trial_row.validated or stack.rows.weights(trial_row.module)
            reported.append(row)
        prunes = self.feed.report([(trial_rows[row].spec, metrics[row]) for row in reported])
        for row, prune in zip(reported, prunes, strict=True):
            trial_row = trial_rows[row]
            # A trial after its last epoch is complete and not pruned.
            if stack.row_modules is not None:
                stack.row_modules.watch(trial_row)
            if trial_row.epoch == self.settings.max_epochs:
                results[row] = self.source.result(trial_row, "COMPLETE", "")
            elif prune:
                results[row] = self.source.result(trial_row, "PRUNED", f"pruned after epoch {trial_row.epoch}")
            elif stack.row_modules is None:
                trial_row.advance("epoch", trial_row.epoch)
            if stack.row_modules is not None and row in results:
                stack.row_modules.end(trial_row)
                if trial_row.error is not None:
                    del results[row]
        ended = sorted(results)
        self._ended += len(ended)
        if ended:
            self.feed.tell([results[row] for row in ended])
        return ended


def free_gpu_memory(on_gpu: bool) -> None:
    """Free the GPU memory of unused `VectorizedTrials`, whose modules and Trainers form reference cycles."""
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()
