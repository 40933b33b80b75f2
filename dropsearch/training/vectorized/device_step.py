"""A whole step as one recording: what a GPU needs, where launching takes longer than computing.

The step reads tensors that stay where they are: the examples and the order of each row's epoch, rates, seeds of masks,
optimiser options. It moves its own place in the epoch forward, so that between two steps the host does nothing but
play it. On CUDA it is recorded once as a graph; elsewhere it runs as it is written, which is how it is tested without
a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from dropsearch.dropout.device_bits import DeviceBits
from dropsearch.dropout.philox import words
from dropsearch.dropout.row_control import RowRates, Shapes, row_rates
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.cuda_graph import Recorded
from dropsearch.training.vectorized.flat_optimizers import FlatOptimizer
from dropsearch.training.vectorized.row_batches import gathered
from dropsearch.training.vectorized.stacked_state import StackedState
from dropsearch.training.vectorized.step import VectorizedStep, cast
from dropsearch.training.vectorized.trial_row import TrialRow
from dropsearch.training.vectorized.vmap_runner import VmapRunner


class DeviceStep(VectorizedStep):
    """A step without a word from the host in it.

    Args:
        together: Runs the module's own steps for all rows.
        rows: The array's state.
        shapes: The shape of each site's mask for one row.
        settings: What all trials share.
        examples: The training set, where the rows lie.
        optimizer: Steps all rows at once.
    """

    def __init__(
        self,
        runner: VmapRunner,
        rows: StackedState,
        shapes: Shapes,
        settings: TrainerSettings,
        examples: Sequence[Tensor],
        optimizer: FlatOptimizer,
    ) -> None:
        super().__init__(runner, rows, shapes, settings, examples)
        self.optimizer = optimizer
        self.recorded: dict[int, Recorded] = {}
        """The step, by the number of examples that each row takes."""
        self._stocks: dict[int, Optimizer] = {}
        self._forget()

    def _forget(self) -> None:
        """Give up all recordings and what they read: they are of rows that were."""
        self.recorded.clear()
        self._orders = torch.zeros(0, 0, dtype=torch.int64)
        self._rates: RowRates = {}
        self._sums = {}
        device, width = self.rows.flat.device, self.rows.width
        self._bits = DeviceBits(self.shapes, width, device)
        self._field = torch.zeros(width, self._bits.size, dtype=torch.int16, device=device)
        self._mask_seeds = torch.zeros(width, dtype=torch.int64, device=device)
        self._mask_steps = torch.zeros(width, dtype=torch.int64, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        """The first example of the next step in each row's order."""
        self._stale = True

    def fill(self, row: int, trial_row: TrialRow, optimizer: Optimizer) -> None:
        """Take the module's own optimiser for its options, which its schedules change."""
        self._stocks[id(trial_row)] = optimizer
        self.optimizer.begin(row, trial_row.module, optimizer)

    def refresh(self, trial_rows: Sequence[TrialRow]) -> None:
        """Write the rates of the present rows, and the seeds of their masks, to where the step reads them."""
        device, dtype = self.rows.flat.device, self.rows.flat.dtype
        self._stocks = {id(trial_row): self._stocks[id(trial_row)] for trial_row in trial_rows}
        self._seeds_of_masks = self._seeds(trial_rows)
        self._mask_seeds.copy_(words(self._seeds_of_masks, torch.device("cpu")))
        rates = row_rates([trial_row.spec.rates for trial_row in trial_rows], dtype, device)
        if not self._rates:
            self._rates = rates
            return
        for site, fields in rates.items():
            for mine, given in zip(self._rates[site], fields, strict=True):
                mine.copy_(given)

    def narrow(self, rows: StackedState, trial_rows: Sequence[TrialRow], kept: Sequence[int]) -> None:
        """Go on in `rows`, for which the step is recorded anew."""
        self.rows = rows
        self.optimizer.narrow(rows, kept)
        self._forget()

    def state(self, trial_rows: Sequence[TrialRow]) -> list[Tensor]:
        """Return what the optimiser keeps, the bits drawn ahead, and what the step reads."""
        return [*self.optimizer.tensors(), self._field, *self._bits.fields(), self._orders]

    def begin_epoch(self, trial_rows: Sequence[TrialRow], orders: Tensor) -> None:
        """Write what the steps of an epoch read; schedules may have moved."""
        for row, trial_row in enumerate(trial_rows):
            self.optimizer.take(row, self._stocks[id(trial_row)])
        if orders.shape != self._orders.shape:
            self._orders = torch.zeros_like(orders, device=self.rows.flat.device)
            self.recorded.clear()
        self._orders.copy_(orders)
        self._place.zero_()
        self._mask_steps.copy_(torch.tensor([trial_row.step for trial_row in trial_rows], dtype=torch.int64))
        self._stepwise = [
            trial_row
            for trial_row in trial_rows
            if not trial_row.is_idle and any(s.interval == "step" for s in trial_row.schedules)
        ]
        self._steps = 0
        for total in self._sums.values():
            total.zero_()

    def run(self, trial_rows: Sequence[TrialRow], piece: slice) -> None:
        """Play one step."""
        size = piece.stop - piece.start
        if not self._bits.is_one_kernel:
            self._field.copy_(self._bits.field(self._seeds_of_masks, [trial_row.step for trial_row in trial_rows]))
        self.optimizer.upload()
        if size not in self.recorded:
            self.recorded[size] = Recorded(lambda: self._step(size), self.rows.flat.device, "training step")
        self.recorded[size]()
        self._steps += 1
        for trial_row in trial_rows:
            trial_row.step += 1
        if self._stepwise:
            self._advance(trial_rows)

    def _advance(self, trial_rows: Sequence[TrialRow]) -> None:
        moved = {id(trial_row) for trial_row in self._stepwise}
        for row, trial_row in enumerate(trial_rows):
            if id(trial_row) in moved:
                trial_row.advance("step", trial_row.step)
                self.optimizer.take(row, self._stocks[id(trial_row)])

    def _step(self, size: int) -> None:
        device = self.rows.flat.device
        chosen = self._orders.index_select(1, self._place + torch.arange(size, device=device))
        batch = cast(gathered(self.examples, chosen), self.rows.flat.dtype)
        if self._bits.is_one_kernel:
            self._bits.fill(self._field, self._mask_seeds, self._mask_steps)
        logged = self._gradients(batch, self._rates, self._bits.views(self._field))
        self.optimizer.step()
        for name, value in logged.items():
            if name not in self._sums:
                # A module may log in the low precision of its products, in which a sum soon stands still.
                self._sums[name] = torch.zeros_like(value, dtype=torch.float64, device=device)
            self._sums[name].add_(value)
        self._place += size
        self._mask_steps += 1


def records(device: torch.device) -> bool:
    """Say whether steps on a device are to be whole recordings."""
    return device.type == "cuda"
