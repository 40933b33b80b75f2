"""One training step of all rows: masks, the module's training step, gradients, optimizers, logged values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dropsearch.dropout.row_control import DrawnBits, RowBits, Shapes, row_rates
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.row_batches import StepBatches
from dropsearch.training.vectorized.row_optimizers import RowOptimizer
from dropsearch.training.vectorized.row_stacks import RowStack
from dropsearch.training.vectorized.stacked_state import RowsPart, StackedState
from dropsearch.training.vectorized.step_logs import StepLogs
from dropsearch.training.vectorized.trial_row import TrialRow, require_a_row
from dropsearch.training.vectorized.vmap_runner import VmapRunner

if TYPE_CHECKING:
    from dropsearch.training.vectorized.row_modules import RowModules

ShapesOf = Callable[[RowStack], Shapes]
MOST_SHAPES = 64
"""Number of batch shapes for which the memory of random bits is kept."""


class VectorizedStep(ABC):
    """Runs training steps of all rows.

    `shapes` returns the mask shape of each site for one row of a stack.
    """

    def __init__(self, runner: VmapRunner, rows: StackedState, shapes: ShapesOf, settings: TrainerSettings) -> None:
        self.runner, self.rows, self.shapes, self.settings = runner, rows, shapes, settings
        self.row_modules: RowModules | None = None
        """Applies effects of steps; None if steps only compute a loss and log means."""
        self._accumulation = settings.accumulation
        self.logs = StepLogs(rows.width, rows.flat.device)

    @abstractmethod
    def fill(self, row: int, trial_row: TrialRow, optimizer: Optimizer) -> None:
        """Start a trial in a row, to which its module is bound, with the module's optimizer."""

    @abstractmethod
    def refresh(self, trial_rows: Sequence[TrialRow]) -> None:
        """Load the rates of the current rows, after some were filled or moved."""

    @abstractmethod
    def resize(self, rows: StackedState, trial_rows: Sequence[TrialRow], sources: Sequence[int]) -> None:
        """Continue with other `rows`, whose row i was row `sources[i]`; rows of new trials are filled afterwards."""

    @abstractmethod
    def run(self, trial_rows: Sequence[TrialRow], taken: StepBatches) -> None:
        """Train the rows that have a batch for one step."""

    @abstractmethod
    def state(self, trial_rows: Sequence[TrialRow]) -> list[Tensor]:
        """Return the tensors of optimizers and masks."""

    def begin_epoch(self, trial_rows: Sequence[TrialRow]) -> None:
        """Clear the losses and logs of the last epoch."""
        self.logs.begin_epoch()

    def _clip(self, rows: Sequence[int] | None = None) -> None:
        if self.settings.gradient_clip_val:
            self.rows.clip(self.settings.gradient_clip_val, self.settings.clips_by, rows)

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
        self._bits: dict[Any, RowBits] = {}

    def resize(self, rows: StackedState, trial_rows: Sequence[TrialRow], sources: Sequence[int]) -> None:
        """Move the optimizers to their new rows."""
        self.rows, self.logs = rows, StepLogs(rows.width, rows.flat.device)
        for row, trial_row in enumerate(trial_rows):
            if trial_row.optimizer is not None:  # None in an empty row
                trial_row.optimizer.move(rows, row)

    def state(self, trial_rows: Sequence[TrialRow]) -> list[Tensor]:
        """Return the optimizer state of all rows and the random bits of the masks."""
        states = [tensor for trial_row in trial_rows if trial_row.optimizer for tensor in trial_row.optimizer.state()]
        return [*states, *(field for bits in self._bits.values() for field in bits.fields())]

    def run(self, trial_rows: Sequence[TrialRow], taken: StepBatches) -> None:
        """Train the rows that have a batch for one step."""
        self.runner.batch_idx = taken.index
        cast_stacks = [stack.cast(self.rows.flat.dtype) for stack in taken.stacks]
        stacks = {row: stack for stack in cast_stacks for row in stack.rows}
        if not stacks:
            return
        rows, own = list(stacks), lambda row: stacks[row].of(row)
        if self.row_modules is not None:
            self.row_modules.begin_batch(trial_rows, rows, own)
        due = [row for row in rows if trial_rows[row].is_due(taken.index, self._accumulation)]
        self._gradients(trial_rows, stacks, due, is_first=taken.index % self._accumulation == 0)
        require_a_row(trial_rows)
        for row in rows:
            trial_rows[row].step += 1
        for row, trial_row in ((row, trial_rows[row]) for row in due if trial_rows[row].error is None):
            assert trial_row.optimizer is not None
            trial_row.note_learning_rate()
            trial_row.optimizer.step(self.rows.unused_spans(row))
            trial_row.updates += 1
            trial_row.advance("step", taken.index + 1)
        if self.row_modules is not None:
            self.row_modules.end_batch(trial_rows, rows, own)

    def _gradients(
        self, trial_rows: Sequence[TrialRow], stacks: Mapping[int, RowStack], due: Sequence[int], *, is_first: bool
    ) -> None:
        """Compute the gradients of the rows that take a step, and store their logged values.

        The optimizers of the rows `due` step after it; `is_first` begins a sum of gradients.
        """
        losses: list[tuple[Tensor, RowsPart | None]] = []
        groups: list[list[int]] = []

        def step(group: list[int], part: StackedState | RowsPart) -> None:
            own, rates = stacks[group[0]].part(group), self._rates
            if self.row_modules is not None:
                self.runner.modules = [trial_rows[row].module for row in group]
            bits = self._drawn([trial_rows[row] for row in group], own)
            if isinstance(part, RowsPart):
                index = torch.tensor(group, device=self.rows.flat.device)
                rates = {site: (v[index], t[index], s[index]) for site, (v, t, s) in self._rates.items()}
                bits = bits.copied()  # other rows use the same memory
            found, logged = self.runner.train(part, own.examples, rates, bits, own.form)
            if self.row_modules is not None:
                self.row_modules.trained(trial_rows, group, own.size)
            if isinstance(part, RowsPart):
                part.put_back()
            found_part = part if isinstance(part, RowsPart) else None
            losses.append((found / self._accumulation if self._accumulation > 1 else found, found_part))
            groups.append(group)
            whole = len(group) == self.rows.width
            self.logs.add(found, logged, self.runner.log_options, own.size, None if whole else group)

        for stack in {id(stack): stack for stack in stacks.values()}.values():
            self.runner.in_groups(trial_rows, self.rows, step, stack.rows)
        if self.row_modules is not None:
            found = (zip(group, each, strict=True) for group, (each, _) in zip(groups, losses, strict=True))
            each = {row: loss for pairs in found for row, loss in pairs}
            self.row_modules.before_backward(trial_rows, each, is_first=is_first)
        if not losses:
            return
        self.rows.compute_gradients(losses, adds=not is_first)
        for row in stacks:
            self.rows.show_gradients(row, trial_rows[row].module)
        if self.row_modules is not None:
            self.row_modules.after_backward(trial_rows, stacks, due)
            if self.row_modules.may_change_gradients:
                for row in stacks:
                    self.rows.take_gradients(row, trial_rows[row].module)
        if due:
            self._clip(None if len(due) == len(trial_rows) else due)

    def _drawn(self, trial_rows: Sequence[TrialRow], stack: RowStack) -> DrawnBits:
        key = stack.shape, len(trial_rows)
        if key not in self._bits:
            if len(self._bits) == MOST_SHAPES:
                self._bits.clear()
            self._bits[key] = RowBits(self.shapes(stack), len(trial_rows), self.rows.flat.device)
        return self._bits[key].draw(self._seeds(trial_rows), [trial_row.step for trial_row in trial_rows])
