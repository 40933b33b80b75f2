"""One training step of all rows of an array: masks, the module's own steps, gradients, optimisers, what is logged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dropsearch.dropout.row_control import RowBits, RowRates, Shapes, row_rates
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.row_batches import gathered
from dropsearch.training.vectorized.row_optimizers import RowOptimizer
from dropsearch.training.vectorized.stacked_state import StackedState
from dropsearch.training.vectorized.trial_row import TrialRow
from dropsearch.training.vectorized.vmap_runner import VmapRunner


class VectorizedStep(ABC):
    """Steps the rows of an array.

    Args:
        together: Runs the module's own steps for all rows.
        rows: The array's state.
        shapes: The shape of each site's mask for one row.
        settings: What all trials share.
        examples: The training set, `[examples, ...]` each, where the rows lie.
    """

    def __init__(
        self,
        runner: VmapRunner,
        rows: StackedState,
        shapes: Shapes,
        settings: TrainerSettings,
        examples: Sequence[Tensor],
    ) -> None:
        self.runner, self.rows, self.shapes, self.settings = runner, rows, shapes, settings
        self.examples = tuple(examples)
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    @abstractmethod
    def fill(self, row: int, trial_row: TrialRow, optimizer: Optimizer) -> None:
        """Take up a trial that begins in a row; its module is bound to the row, `optimizer` is the module's own."""

    @abstractmethod
    def refresh(self, trial_rows: Sequence[TrialRow]) -> None:
        """Take up the rates of the present rows, after some were filled or the array narrowed."""

    @abstractmethod
    def narrow(self, rows: StackedState, trial_rows: Sequence[TrialRow], kept: Sequence[int]) -> None:
        """Go on in `rows` with those rows that are left: `kept` says which ones they were."""

    @abstractmethod
    def run(self, trial_rows: Sequence[TrialRow], piece: slice) -> None:
        """Train every row for one step on a piece of its order."""

    @abstractmethod
    def state(self, trial_rows: Sequence[TrialRow]) -> list[Tensor]:
        """Return what optimisers and masks keep from step to step."""

    def begin_epoch(self, trial_rows: Sequence[TrialRow], orders: Tensor) -> None:
        """Take the order of each row's epoch, int64 `[rows, examples]`, and begin to sum up what the rows log."""
        self._orders = orders.to(self.rows.flat.device)
        self._steps = 0
        self._sums = {}

    def means(self) -> dict[str, list[float]]:
        """Return what was logged since the epoch began, by name: the mean over steps, one number a row."""
        return {name: (total / self._steps).tolist() for name, total in self._sums.items()}

    def _gradients(self, batch: Any, rates: RowRates, bits: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put the gradients of one step into the rows; return what was logged, and the loss, whoever logs it."""
        losses, logged = self.runner.train(self.rows, batch, rates, bits)
        self.rows.take_gradients(losses)
        if self.settings.gradient_clip_val is not None:
            self.rows.clip(self.settings.gradient_clip_val)
        return {**logged, "train_loss": losses.detach()}

    def _seeds(self, trial_rows: Sequence[TrialRow]) -> list[int]:
        return [self.settings.mask_seed(trial_row.spec) for trial_row in trial_rows]


class HostStep(VectorizedStep):
    """A step whose parts the host launches one by one: masks from NumPy, a fused optimiser call for each row."""

    def fill(self, row: int, trial_row: TrialRow, optimizer: Optimizer) -> None:
        """Give the row an optimiser of its own."""
        trial_row.optimizer = RowOptimizer(self.rows, row, trial_row.module, optimizer)

    def refresh(self, trial_rows: Sequence[TrialRow]) -> None:
        """Take up the rates of the present rows."""
        device, dtype = self.rows.flat.device, self.rows.flat.dtype
        self._rates = row_rates([trial_row.spec.rates for trial_row in trial_rows], dtype, device)
        self._bits = RowBits(self.shapes, len(trial_rows), device)

    def narrow(self, rows: StackedState, trial_rows: Sequence[TrialRow], kept: Sequence[int]) -> None:
        """Have the optimisers go on in their new rows."""
        self.rows = rows
        for row, trial_row in enumerate(trial_rows):
            assert trial_row.optimizer is not None
            trial_row.optimizer.move(rows, row)

    def state(self, trial_rows: Sequence[TrialRow]) -> list[Tensor]:
        """Return what the rows' optimisers keep, and the masks' bits."""
        kept = [tensor for trial_row in trial_rows if trial_row.optimizer for tensor in trial_row.optimizer.state()]
        return [*kept, *self._bits.fields()]

    def run(self, trial_rows: Sequence[TrialRow], piece: slice) -> None:
        """Train every row for one step."""
        batch = gathered(self.examples, self._orders[:, piece])
        bits = self._bits.draw(self._seeds(trial_rows), [trial_row.step for trial_row in trial_rows])
        logged = self._gradients(cast(batch, self.rows.flat.dtype), self._rates, bits)
        for trial_row in trial_rows:
            assert trial_row.optimizer is not None
            trial_row.optimizer.step()
            trial_row.step += 1
            trial_row.advance("step", trial_row.step)
        for name, value in logged.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.double()
        self._steps += 1


def cast(batch: Any, dtype: torch.dtype) -> Any:
    """Return a batch with its floating parts in `dtype`."""
    return tuple(part.to(dtype) if part.is_floating_point() else part for part in batch)
