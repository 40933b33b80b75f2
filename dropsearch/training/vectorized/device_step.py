"""A training step that runs entirely on the device and is captured as one CUDA graph.

The step reads its inputs from tensors with fixed addresses: the examples, the order of each row's epoch, rates, mask
seeds and optimizer options. It advances its own position in the epoch, so the host only replays the graph. On other
devices the same code runs without a graph, which allows testing it on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from dropsearch.core.batches import cast
from dropsearch.dropout.mask_bits import DeviceBits, words
from dropsearch.dropout.row_control import RowRates, row_rates
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.cuda_graph import GraphedCallable
from dropsearch.training.vectorized.flat_optimizers import FlatOptimizer
from dropsearch.training.vectorized.row_batches import MemoryBatches, StepBatches, gather_batches
from dropsearch.training.vectorized.stacked_state import StackedState
from dropsearch.training.vectorized.step import ShapesOf, VectorizedStep
from dropsearch.training.vectorized.step_logs import StepLogs
from dropsearch.training.vectorized.trial_row import TrialRow
from dropsearch.training.vectorized.vmap_runner import VmapRunner


class DeviceStep(VectorizedStep):
    """A training step that needs no input from the host while it runs; the optimizer steps all rows at once."""

    def __init__(
        self,
        runner: VmapRunner,
        rows: StackedState,
        shapes: ShapesOf,
        settings: TrainerSettings,
        batches: MemoryBatches,
        optimizer: FlatOptimizer,
    ) -> None:
        super().__init__(runner, rows, shapes, settings)
        self.batches, self.optimizer = batches, optimizer
        self._mask_shapes = shapes(batches.first())
        self.graphs: dict[tuple[int, bool, bool], GraphedCallable] = {}
        """The captured step for each batch size and place among the steps whose gradients are summed."""
        self._optimizers: dict[int, Optimizer] = {}
        """The module's optimizer of each trial row, by `id`; schedules change its options."""
        self._reset()

    def _reset(self) -> None:
        self.graphs.clear()
        self._orders = torch.zeros(0, 0, dtype=torch.int64)
        self._rates: RowRates = {}
        device, width = self.rows.flat.device, self.rows.width
        self.logs = StepLogs(width, device)
        self._bits = DeviceBits(self._mask_shapes, width, device)
        self._field = torch.zeros(width, self._bits.size, dtype=torch.int16, device=device)
        self._mask_seeds = torch.zeros(width, dtype=torch.int64, device=device)
        self._mask_steps = torch.zeros(width, dtype=torch.int64, device=device)
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        """Index of the next step's first example in each row's order."""

    def fill(self, row: int, trial_row: TrialRow, optimizer: Optimizer) -> None:
        """Start a trial in a row with the options of its module's optimizer."""
        self._optimizers[id(trial_row)] = optimizer
        self.optimizer.begin(row, trial_row.module, optimizer)

    def refresh(self, trial_rows: Sequence[TrialRow]) -> None:
        """Copy rates and mask seeds of the current rows into the tensors that the step reads."""
        device, dtype = self.rows.flat.device, self.rows.flat.dtype
        self._optimizers = {id(trial_row): self._optimizers[id(trial_row)] for trial_row in trial_rows}
        self._mask_seeds.copy_(words(self._seeds(trial_rows), torch.device("cpu")))
        rates = row_rates([trial_row.spec.rates for trial_row in trial_rows], dtype, device)
        if not self._rates:
            self._rates = rates
            return
        for site, fields in rates.items():
            for target, source in zip(self._rates[site], fields, strict=True):
                target.copy_(source)

    def resize(self, rows: StackedState, trial_rows: Sequence[TrialRow], sources: Sequence[int]) -> None:
        """Continue with other `rows`; the step is captured again."""
        self.rows = rows
        self.optimizer.resize(rows, sources)
        self._reset()

    def state(self, trial_rows: Sequence[TrialRow]) -> list[Tensor]:
        """Return the optimizer state, the random bits and the order of the examples."""
        return [*self.optimizer.tensors(), self._field, self._orders]

    def begin_epoch(self, trial_rows: Sequence[TrialRow]) -> None:
        """Copy the inputs of an epoch to the device: orders, step counts, and options that schedules have changed."""
        orders = self.batches.orders()
        for row, trial_row in enumerate(trial_rows):
            self.optimizer.load_options(row, self._optimizers[id(trial_row)])
        if orders.shape != self._orders.shape:
            self._orders = torch.zeros_like(orders, device=self.rows.flat.device)
            self.graphs.clear()
        self._orders.copy_(orders)
        self._position.zero_()
        self._mask_steps.copy_(torch.tensor([trial_row.step for trial_row in trial_rows], dtype=torch.int64))
        self._stepwise = [
            trial_row
            for trial_row in trial_rows
            if not trial_row.is_idle and any(s.interval == "step" for s in trial_row.schedules)
        ]
        for trial_row in trial_rows:
            trial_row.note_learning_rate()
        self.logs.begin_epoch()

    def run(self, trial_rows: Sequence[TrialRow], taken: StepBatches) -> None:
        """Run one step of all rows, from its graph if there is one."""
        size = self.batches.batch_size
        self.optimizer.upload()
        is_first = taken.index % self._accumulation == 0
        is_due = trial_rows[0].is_due(taken.index, self._accumulation)
        key = size, is_first, is_due
        if key not in self.graphs:
            run = lambda: self._step(size, is_first=is_first, is_due=is_due)  # noqa: E731
            self.graphs[key] = GraphedCallable(run, self.rows.flat.device, "training step")
        self.graphs[key]()
        for trial_row in self._stepwise:
            trial_row.note_learning_rate()
        for trial_row in trial_rows:
            trial_row.step += 1
            trial_row.updates += is_due
        if self._stepwise and is_due:
            self._advance_schedules(trial_rows, taken.index + 1)

    def _advance_schedules(self, trial_rows: Sequence[TrialRow], batches: int) -> None:
        stepwise = {id(trial_row) for trial_row in self._stepwise}
        for row, trial_row in enumerate(trial_rows):
            if id(trial_row) in stepwise:
                trial_row.advance("step", batches)
                self.optimizer.load_options(row, self._optimizers[id(trial_row)])

    def _step(self, size: int, *, is_first: bool, is_due: bool) -> None:
        device = self.rows.flat.device
        indices = self._orders.index_select(1, self._position + torch.arange(size, device=device))
        batch = cast(gather_batches(self.batches.examples, indices), self.rows.flat.dtype)
        self._bits.fill(self._field, self._mask_seeds, self._mask_steps)
        losses, logged = self.runner.train(
            self.rows, batch, self._rates, self._bits.views(self._field), self.batches.form
        )
        scaled = losses / self._accumulation if self._accumulation > 1 else losses
        self.rows.compute_gradients([(scaled, None)], adds=not is_first)
        if is_due:
            self._clip()
            self.optimizer.step(self.rows.unused_spans(0))  # the same in all rows, which run one graph
        self.logs.add(losses, logged, self.runner.log_options, size)
        self._position += size
        self._mask_steps += 1


def uses_cuda_graphs(device: torch.device) -> bool:
    """Return whether steps on a device are captured as CUDA graphs."""
    return device.type == "cuda"
