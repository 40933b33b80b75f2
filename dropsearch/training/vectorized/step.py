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
from dropsearch.training.vectorized.row_optimizers import RowOptimizer
from dropsearch.training.vectorized.stacked_state import Rows
from dropsearch.training.vectorized.trial_row import Slot
from dropsearch.training.vectorized.vmap_runner import Together


class ArrayStep(ABC):
    """Steps the rows of an array.

    Args:
        together: Runs the module's own steps for all rows.
        rows: The array's state.
        shapes: The shape of each site's mask for one row.
        settings: What all trials share.
    """

    def __init__(self, together: Together, rows: Rows, shapes: Shapes, settings: TrainerSettings) -> None:
        self.together, self.rows, self.shapes, self.settings = together, rows, shapes, settings
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    @abstractmethod
    def fill(self, row: int, slot: Slot, optimizer: Optimizer) -> None:
        """Take up a trial that begins in a row; its module is bound to the row, `optimizer` is the module's own."""

    @abstractmethod
    def refresh(self, slots: Sequence[Slot]) -> None:
        """Take up the rates of the present rows, after some were filled or the array narrowed."""

    @abstractmethod
    def narrow(self, rows: Rows, slots: Sequence[Slot], kept: Sequence[int]) -> None:
        """Go on in `rows` with those rows that are left: `kept` says which ones they were."""

    @abstractmethod
    def run(self, slots: Sequence[Slot], batch: tuple[Tensor, ...]) -> None:
        """Train every row for one step on its part of the batch `[rows, batch, ...]`."""

    @abstractmethod
    def state(self, slots: Sequence[Slot]) -> list[Tensor]:
        """Return what optimisers and masks keep from step to step."""

    def begin_epoch(self, slots: Sequence[Slot]) -> None:
        """Begin to sum up what the rows log."""
        self._steps = 0
        self._sums = {}

    def means(self) -> dict[str, list[float]]:
        """Return what was logged since the epoch began, by name: the mean over steps, one number a row."""
        return {name: (total / self._steps).tolist() for name, total in self._sums.items()}

    def _gradients(self, batch: Any, rates: RowRates, bits: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put the gradients of one step into the rows; return what was logged, and the loss, whoever logs it."""
        losses, logged = self.together.train(self.rows, batch, rates, bits)
        self.rows.take_gradients(losses)
        if self.settings.gradient_clip is not None:
            self.rows.clip(self.settings.gradient_clip)
        return {**logged, "train_loss": losses.detach()}

    def _seeds(self, slots: Sequence[Slot]) -> list[int]:
        return [self.settings.mask_seed(slot.spec) for slot in slots]


class HostStep(ArrayStep):
    """A step whose parts the host launches one by one: masks from NumPy, a fused optimiser call for each row."""

    def fill(self, row: int, slot: Slot, optimizer: Optimizer) -> None:
        """Give the row an optimiser of its own."""
        slot.optimizer = RowOptimizer(self.rows, row, slot.module, optimizer)

    def refresh(self, slots: Sequence[Slot]) -> None:
        """Take up the rates of the present rows."""
        device, dtype = self.rows.flat.device, self.rows.flat.dtype
        self._rates = row_rates([slot.spec.rates for slot in slots], dtype, device)
        self._bits = RowBits(self.shapes, len(slots), device)

    def narrow(self, rows: Rows, slots: Sequence[Slot], kept: Sequence[int]) -> None:
        """Have the optimisers go on in their new rows."""
        self.rows = rows
        for row, slot in enumerate(slots):
            assert slot.optimizer is not None
            slot.optimizer.move(rows, row)

    def state(self, slots: Sequence[Slot]) -> list[Tensor]:
        """Return what the rows' optimisers keep, and the masks' bits."""
        kept = [tensor for slot in slots if slot.optimizer for tensor in slot.optimizer.state()]
        return [*kept, *self._bits.fields()]

    def run(self, slots: Sequence[Slot], batch: tuple[Tensor, ...]) -> None:
        """Train every row for one step."""
        bits = self._bits.draw(self._seeds(slots), [slot.step for slot in slots])
        logged = self._gradients(cast(batch, self.rows.flat.dtype), self._rates, bits)
        for slot in slots:
            assert slot.optimizer is not None
            slot.optimizer.step()
            slot.step += 1
            slot.advance("step", slot.step)
        for name, value in logged.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.double()
        self._steps += 1


def cast(batch: Any, dtype: torch.dtype) -> Any:
    """Return a batch with its floating parts in `dtype`."""
    return tuple(part.to(dtype) if part.is_floating_point() else part for part in batch)
