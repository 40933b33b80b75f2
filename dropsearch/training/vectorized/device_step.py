"""A whole step as one recording: what a GPU needs, where launching takes longer than computing.

The step reads tensors that stay where they are: the batch, the masks' bits, rates, optimiser options. Between steps the
host writes new values into them. On CUDA the step is recorded once as a graph and then played back; elsewhere it runs
as it is written, which is how it is tested without a GPU.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.optim import Optimizer

from dropsearch.dropout.device_bits import DeviceBits
from dropsearch.dropout.row_control import RowRates, Shapes, row_rates
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.flat_optimizers import FlatOptimizer
from dropsearch.training.vectorized.stacked_state import StackedState
from dropsearch.training.vectorized.step import VectorizedStep, cast
from dropsearch.training.vectorized.trial_row import TrialRow
from dropsearch.training.vectorized.vmap_runner import VmapRunner

log = logging.getLogger(__name__)

WARM_UP = 3
"""Steps that are launched part by part before one is recorded: libraries choose their kernels and memory in them."""


class DeviceStep(VectorizedStep):
    """A step without a word from the host in it.

    Args:
        together: Runs the module's own steps for all rows.
        rows: The array's state.
        shapes: The shape of each site's mask for one row.
        settings: What all trials share.
        optimizer: Steps all rows at once.
    """

    def __init__(
        self,
        runner: VmapRunner,
        rows: StackedState,
        shapes: Shapes,
        settings: TrainerSettings,
        optimizer: FlatOptimizer,
    ) -> None:
        super().__init__(runner, rows, shapes, settings)
        self.optimizer = optimizer
        self.recording: torch.cuda.CUDAGraph | None = None
        self.problem = ""
        """Why the step is not recorded, where a recording was tried: a module may read a number back to the host."""
        self._launched = 0
        self._batch: tuple[Tensor, ...] = ()
        self._stocks: dict[int, Optimizer] = {}

    def fill(self, row: int, trial_row: TrialRow, optimizer: Optimizer) -> None:
        """Take the module's own optimiser for its options, which its schedules change."""
        self._stocks[id(trial_row)] = optimizer
        self.optimizer.begin(row, trial_row.module, optimizer)

    def refresh(self, trial_rows: Sequence[TrialRow]) -> None:
        """Write the rates of the present rows to where the step reads them."""
        device, dtype = self.rows.flat.device, self.rows.flat.dtype
        self._stocks = {id(trial_row): self._stocks[id(trial_row)] for trial_row in trial_rows}
        rates = row_rates([trial_row.spec.rates for trial_row in trial_rows], dtype, device)
        if not self._batch:
            self._rates: RowRates = rates
            self._bits = DeviceBits(self.shapes, len(trial_rows), device)
            self._field = torch.zeros(len(trial_rows), self._bits.size, dtype=torch.int16, device=device)
            return
        for site, fields in rates.items():
            for mine, given in zip(self._rates[site], fields, strict=True):
                mine.copy_(given)

    def narrow(self, rows: StackedState, trial_rows: Sequence[TrialRow], kept: Sequence[int]) -> None:
        """Forget the recording: it speaks of the rows that were."""
        self.rows = rows
        self.optimizer.narrow(rows, kept)
        self.recording, self._launched, self._batch, self._sums = None, 0, (), {}

    def state(self, trial_rows: Sequence[TrialRow]) -> list[Tensor]:
        """Return what the optimiser keeps, the bits drawn ahead, and what the step reads."""
        return [*self.optimizer.tensors(), self._field, *self._bits.fields(), *self._batch]

    def begin_epoch(self, trial_rows: Sequence[TrialRow]) -> None:
        """Begin to sum up what the rows log, in the same place as before; schedules may have moved."""
        for row, trial_row in enumerate(trial_rows):
            self.optimizer.take(row, self._stocks[id(trial_row)])
        self._steps = 0
        for total in self._sums.values():
            total.zero_()

    def run(self, trial_rows: Sequence[TrialRow], batch: tuple[Tensor, ...]) -> None:
        """Write what this step reads, then play it."""
        given = cast(batch, self.rows.flat.dtype)
        if [part.shape for part in given] != [part.shape for part in self._batch]:
            self._batch = tuple(part.clone() for part in given)
            self.recording, self._launched = None, 0
        for mine, part in zip(self._batch, given, strict=True):
            mine.copy_(part)
        self._field.copy_(self._bits.field(self._seeds(trial_rows), [trial_row.step for trial_row in trial_rows]))
        self.optimizer.upload()
        self._play()
        self._steps += 1
        for row, trial_row in enumerate(trial_rows):
            trial_row.step += 1
            if any(schedule.interval == "step" for schedule in trial_row.schedules):
                trial_row.advance("step", trial_row.step)
                self.optimizer.take(row, self._stocks[id(trial_row)])

    def _play(self) -> None:
        if self.recording is None and not self.problem and self.rows.flat.is_cuda:
            if self._launched < WARM_UP:
                self._aside()
                return
            self._record()
        if self.recording is not None:
            self.recording.replay()
        else:
            self._step()

    def _step(self) -> None:
        logged = self._gradients(self._batch, self._rates, self._bits.views(self._field))
        self.optimizer.step()
        for name, value in logged.items():
            if name not in self._sums:
                # A module may log in the low precision of its products, in which a sum soon stands still.
                self._sums[name] = torch.zeros_like(value, dtype=torch.float64, device=self.rows.flat.device)
            self._sums[name].add_(value)

    def _aside(self) -> None:
        """Run a step as it is written, in a stream of its own, as a recording will."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self._launched += 1

    def _record(self) -> None:
        """Record the step, which trains nothing yet; where that cannot be done, say why in `problem`."""
        recording, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        gc.collect()  # a recording that is destroyed while another is made would spoil it
        collecting = gc.isenabled()
        gc.disable()
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            with torch.cuda.stream(stream):
                recording.capture_begin()
                try:
                    self._step()
                finally:
                    recording.capture_end()
            self.recording = recording
        except RuntimeError as error:
            first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if isinstance(first, torch.cuda.OutOfMemoryError):
                raise first from None
            self.problem = " ".join(str(first).split())[:200]
            _say_once(f"The step cannot be recorded as a CUDA graph, and runs as it is written: {self.problem}")
            torch.cuda.synchronize()
        finally:
            if collecting:
                gc.enable()


@cache
def _say_once(message: str) -> None:
    log.warning(message)


def records(device: torch.device) -> bool:
    """Say whether steps on a device are to be whole recordings."""
    return device.type == "cuda"
