"""One training step of all rows: masks, the module's training step, gradients, optimizers, logged values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dropsearch.core.batches import BatchForm, mapped
from dropsearch.dropout.row_control import RowBits, RowRates, Shapes, row_rates
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.row_batches import gather_batches
from dropsearch.training.vectorized.row_optimizers import RowOptimizer
from dropsearch.training.vectorized.stacked_state import RowsPart, StackedState
from dropsearch.training.vectorized.trial_row import TrialRow
from dropsearch.training.vectorized.vmap_runner import VmapRunner

if TYPE_CHECKING:
    from dropsearch.training.vectorized.row_modules import RowModules


class VectorizedStep(ABC):
    """Runs training steps of all rows.

    Args:
        runner: Runs the module's steps for all rows.
        rows: Stacked parameters, gradients and buffers.
        shapes: Mask shape of each site for one row.
        settings: Training settings shared by all trials.
        examples: Training set, `[examples, ...]` each, on the device of the rows.
        form: Form of the module's batches.
    """

    def __init__(
        self,
        runner: VmapRunner,
        rows: StackedState,
        shapes: Shapes,
        settings: TrainerSettings,
        examples: Sequence[Tensor],
        form: BatchForm,
    ) -> None:
        self.runner, self.rows, self.shapes, self.settings = runner, rows, shapes, settings
        self.examples, self.form = tuple(examples), form
        self.row_modules: RowModules | None = None
        """Does what steps do beside computing a loss and logging means; None if they do nothing else."""
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    @abstractmethod
    def fill(self, row: int, trial_row: TrialRow, optimizer: Optimizer) -> None:
        """Start a trial in a row, to which its module is bound; `optimizer` is the module's own."""

    @abstractmethod
    def refresh(self, trial_rows: Sequence[TrialRow]) -> None:
        """Load the rates of the current rows, after some were filled or the state was narrowed."""

    @abstractmethod
    def narrow(self, rows: StackedState, trial_rows: Sequence[TrialRow], remaining: Sequence[int]) -> None:
        """Continue with the narrower `rows`, whose row i was row `remaining[i]`."""

    @abstractmethod
    def run(self, trial_rows: Sequence[TrialRow], piece: slice) -> None:
        """Train every row for one step, on the slice `piece` of its order."""

    @abstractmethod
    def state(self, trial_rows: Sequence[TrialRow]) -> list[Tensor]:
        """Return the tensors that optimizers and masks hold between steps."""

    def begin_epoch(self, trial_rows: Sequence[TrialRow], orders: Tensor) -> None:
        """Set the order of each row's epoch, int64 `[rows, examples]`, and reset the sums of logged values."""
        self._orders = orders.to(self.rows.flat.device)
        self._steps = 0
        self._sums = {}

    def means(self) -> dict[str, list[float]]:
        """Return each logged value's mean over the steps of the epoch, by name; one number per row."""
        return {name: (total / self._steps).tolist() for name, total in self._sums.items()}

    def _gradients(self, batch: Sequence[Tensor], rates: RowRates, bits: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the gradients of one step; return the logged values and the loss as `train_loss`."""
        return self._step_gradients(*self.runner.train(self.rows, batch, rates, bits, self.form))

    def _step_gradients(self, losses: Tensor, logged: dict[str, Tensor]) -> dict[str, Tensor]:
        self.rows.compute_gradients(losses)
        self._clip()
        return {**logged, "train_loss": losses.detach()}

    def _clip(self) -> None:
        if self.settings.gradient_clip_val is not None:
            self.rows.clip(self.settings.gradient_clip_val)

    def _seeds(self, trial_rows: Sequence[TrialRow]) -> list[int]:
        return [self.settings.mask_seed(trial_row.spec) for trial_row in trial_rows]


class HostStep(VectorizedStep):
    """A step for the CPU: masks drawn by NumPy, and one fused optimizer call per row."""

    def fill(self, row: int, trial_row: TrialRow, optimizer: Optimizer) -> None:
        """Start a trial in a row with a `RowOptimizer`."""
        trial_row.optimizer = RowOptimizer(self.rows, row, trial_row.module, optimizer)

    def refresh(self, trial_rows: Sequence[TrialRow]) -> None:
        """Load the rates of the current rows."""
        device, dtype = self.rows.flat.device, self.rows.flat.dtype
        self._rates = row_rates([trial_row.spec.rates for trial_row in trial_rows], dtype, device)
        self._bits = RowBits(self.shapes, len(trial_rows), device)

    def narrow(self, rows: StackedState, trial_rows: Sequence[TrialRow], remaining: Sequence[int]) -> None:
        """Move the optimizers to their new rows."""
        self.rows = rows
        for row, trial_row in enumerate(trial_rows):
            assert trial_row.optimizer is not None
            trial_row.optimizer.move(rows, row)

    def state(self, trial_rows: Sequence[TrialRow]) -> list[Tensor]:
        """Return the optimizer state of all rows and the random bits of the masks."""
        states = [tensor for trial_row in trial_rows if trial_row.optimizer for tensor in trial_row.optimizer.state()]
        return [*states, *self._bits.fields()]

    def run(self, trial_rows: Sequence[TrialRow], piece: slice) -> None:
        """Train every row for one step."""
        batch = gather_batches(self.examples, self._orders[:, piece])
        bits = self._bits.draw(self._seeds(trial_rows), [trial_row.step for trial_row in trial_rows])
        batch = cast(batch, self.rows.flat.dtype)
        own = lambda row: self.form.build([tensor[row] for tensor in batch])  # noqa: E731
        if self.row_modules is None:
            logged = self._gradients(batch, self._rates, bits)
        else:
            self.runner.batch_idx = piece.start // (piece.stop - piece.start)
            self.row_modules.begin_batch(trial_rows, own)
            logged = self._grouped_gradients(self.row_modules, trial_rows, batch, bits)
        for trial_row in trial_rows:
            assert trial_row.optimizer is not None
            trial_row.optimizer.step()
            trial_row.step += 1
            trial_row.advance("step", trial_row.step)
        if self.row_modules is not None:
            self.row_modules.end_batch(trial_rows, own)
        for name, value in logged.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.double()
        self._steps += 1

    def _grouped_gradients(
        self, row_modules: RowModules, trial_rows: Sequence[TrialRow], batch: Sequence[Tensor], bits: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the gradients of a step that does more, for rows that can take it together."""
        losses: dict[int, Tensor] = {}

        def step(group: list[int], part: StackedState | RowsPart) -> None:
            examples, rates, own_bits = batch, self._rates, bits
            if isinstance(part, RowsPart):
                index = torch.tensor(group, device=self.rows.flat.device)
                examples = [tensor.index_select(0, index) for tensor in batch]
                rates = {site: (v[index], t[index], s[index]) for site, (v, t, s) in self._rates.items()}
                own_bits = {site: tensor.index_select(0, index) for site, tensor in bits.items()}
            found, _ = self.runner.train(part, examples, rates, own_bits, self.form)
            row_modules.trained(trial_rows, group, examples[0].shape[1])
            if isinstance(part, RowsPart):
                part.put_back()
            losses.update(zip(group, found.unbind(0), strict=True))

        self.runner.in_groups(trial_rows, self.rows, step)
        stacked = torch.stack([losses[row] for row in range(len(trial_rows))])
        row_modules.before_backward(trial_rows, stacked)
        self.rows.compute_gradients(stacked)
        row_modules.after_backward(trial_rows)
        self._clip()
        return {"train_loss": stacked.detach()}


def cast(batch: Any, dtype: torch.dtype) -> Any:
    """Return a batch with its floating-point tensors converted to `dtype`."""
    return mapped(batch, lambda part: part.to(dtype) if part.is_floating_point() else part)
