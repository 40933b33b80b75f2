"""Evaluation of all rows with dropout off: its sets, what its steps draw, and the means of what they log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor

from dropsearch.core.batches import cast, mapped, tensors
from dropsearch.core.records import TrialSpec
from dropsearch.core.seeds import derived_seed
from dropsearch.datasets.lockstep import LockstepReader
from dropsearch.dropout.row_control import RowBits, RowRates, Shapes, row_rates
from dropsearch.dropout.trial_control import TRAINING_PART, VALIDATION
from dropsearch.training.protocols import RowLoader, TrialData
from dropsearch.training.vectorized.cuda_graph import GraphedCallable
from dropsearch.training.vectorized.row_batches import gather_batches, read_in_lockstep
from dropsearch.training.vectorized.row_stacks import RowStack
from dropsearch.training.vectorized.stacked_state import RowsPart, StackedState
from dropsearch.training.vectorized.trial_row import TrialRow
from dropsearch.training.vectorized.vmap_runner import VmapRunner

PASSES = {"val": VALIDATION, "part": TRAINING_PART}

Means = dict[str, list[float]]
"""The mean over examples of each logged value, by name; one number per row."""
LOADERS: Mapping[str, Callable[[TrialData], Any]] = {
    "val": lambda data: data.val_dataloader(),
    "part": lambda data: data.train_part_loader(),
}


EvaluationSet = Iterable[tuple[int, RowStack]]
"""The batches of an evaluation of all rows, with their numbers."""


class SharedSet:
    """Batches that all rows share.

    If `kept` names a device and a real type, they are kept there; else the loader is read each time.
    """

    def __init__(self, batches: Any, rows: int, kept: tuple[torch.device, torch.dtype] | None = None) -> None:
        self._batches, self._rows = batches, list(range(rows))
        if kept is not None:
            device, dtype = kept
            self._batches = [cast(mapped(batch, lambda part: part.to(device)), dtype) for batch in batches]

    def __iter__(self) -> Iterator[tuple[int, RowStack]]:
        return enumerate(RowStack(self._rows, batch, None) for batch in self._batches)


class OwnSet:
    """Separate examples for each row, as indices of shared tensors, whose address stays, as a CUDA graph requires."""

    def __init__(self, loaders: Sequence[RowLoader]) -> None:
        first = loaders[0]
        self._tensors, self._form, self._size = first.tensors, first.form, first.batch_size
        self._indices = torch.stack([loader.order(0) for loader in loaders]).to(first.tensors[0].device)

    def take(self, row: int, loader: RowLoader) -> None:
        """Replace the examples of a row."""
        self._indices[row].copy_(loader.order(0))

    def __iter__(self) -> Iterator[tuple[int, RowStack]]:
        rows = list(range(len(self._indices)))
        for index, indices in enumerate(self._indices.split(self._size, dim=1)):
            yield index, RowStack(rows, gather_batches(self._tensors, indices), self._form)


class ReadSet:
    """Batches that each row reads from its own loader; a row whose loader raises is marked as failed."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._reader = device, LockstepReader()
        self.trial_rows: Sequence[TrialRow] = ()

    def __iter__(self) -> Iterator[tuple[int, RowStack]]:
        loaders = {row: each.val_loader for row, each in enumerate(self.trial_rows) if not each.is_idle}
        any_length = dict.fromkeys(loaders)
        for taken in read_in_lockstep(self._reader, self.trial_rows, loaders, any_length, self._device):
            yield from ((taken.index, stack) for stack in taken.stacks)


Noise = tuple[RowRates, Mapping[str, Tensor]]


class EvaluationNoise:
    """Draws the random bits of validation steps, for each row the same as in sequential training."""

    def __init__(self, shapes_of: Callable[[Any], Shapes], mask_seed: Callable[[TrialSpec], int]) -> None:
        self._shapes_of, self._mask_seed = shapes_of, mask_seed
        self._shapes: dict[tuple[Any, ...], Shapes] = {}
        self.draws = False

    def observe(self, batches: Iterable[Any]) -> None:
        """Detect whether a validation step draws or drops, by a step on the first batch."""
        self.draws = any(bool(self._shapes_for(batch)) for batch, _ in zip(batches, range(1), strict=False))

    def _shapes_for(self, batch: Any) -> Shapes:
        key = tuple(tensor.shape for tensor in tensors(batch))
        if key not in self._shapes:
            self._shapes[key] = self._shapes_of(batch)
        return self._shapes[key]

    def of(self, trial_rows: Sequence[TrialRow], of: str, stack: RowStack, like: Tensor) -> Noise:
        """Return the rates and bits for the next validation step of some rows; call `count` after the step.

        `of` names the data; `like` is a tensor of the dtype and device of the rows.
        """
        if not self.draws:
            return {}, {}
        seeds = [derived_seed(self._mask_seed(trial_row.spec), of) for trial_row in trial_rows]
        rates = row_rates([trial_row.spec.rates for trial_row in trial_rows], like.dtype, like.device)
        bits = RowBits(self._shapes_for(stack.of(stack.rows[0])), len(trial_rows), like.device)
        return rates, bits.draw(seeds, [trial_row.evaluations[of] for trial_row in trial_rows])

    def count(self, trial_rows: Iterable[TrialRow], of: str) -> None:
        """Count a validation step of some rows."""
        for trial_row in trial_rows:
            trial_row.evaluations[of] += 1


class RowEvaluation:
    """Evaluates all rows. With CUDA graphs the whole evaluation is one graph.

    `shared` are loaders of the batches that all rows share, by the names of `LOADERS`; None if each row has its own.
    """

    def __init__(
        self, runner: VmapRunner, shared: Mapping[str, Any] | None, noise: EvaluationNoise, *, use_cuda_graph: bool
    ) -> None:
        self._runner, self._shared, self._noise, self._use_cuda_graph = runner, shared, noise, use_cuda_graph
        self._trial_rows: Sequence[TrialRow] = ()
        self._due: Set[int] = set()
        self._rows: StackedState | None = None
        self._data: list[TrialData] = []
        self._sets: Mapping[str, EvaluationSet] = {}

    def sets(self, rows: StackedState, trial_rows: Sequence[TrialRow]) -> Mapping[str, EvaluationSet]:
        """Return the evaluation data of the current rows, by the names of `LOADERS`."""
        if self._rows is not rows:
            self._prepare(rows, trial_rows)
        for each in self._sets.values():
            if isinstance(each, ReadSet):
                each.trial_rows = trial_rows
        for row, trial_row in enumerate(trial_rows):
            if trial_row.data is not self._data[row]:
                self._data[row] = trial_row.data
                for name, each in self._sets.items():
                    if isinstance(each, OwnSet):
                        each.take(row, LOADERS[name](trial_row.data))
        return self._sets

    def launch(self, rows: StackedState, trial_rows: Sequence[TrialRow], due: Set[int]) -> None:
        """Start the evaluation of all rows, whose result `means` awaits; only the rows `due` need the training part."""
        self._trial_rows, self._due = trial_rows, due
        self.sets(rows, trial_rows)
        self._run()

    def means(self) -> dict[str, Means]:
        """Return the logged means of each row, by the names of `LOADERS`."""
        numbers = self._result.tolist()
        return {
            name: {logged: numbers[index] for column_set, index, logged in self._columns if column_set == name}
            for name in self._sets
        }

    def _prepare(self, rows: StackedState, trial_rows: Sequence[TrialRow]) -> None:
        self._rows, self._data = rows, [trial_row.data for trial_row in trial_rows]
        self._columns: list[tuple[str, int, str]] = []
        device = rows.flat.device
        if self._shared is None:
            self._sets = {name: OwnSet([load(data) for data in self._data]) for name, load in LOADERS.items()}
        else:
            kept = (device, rows.flat.dtype) if self._use_cuda_graph else None
            self._sets = {
                name: batches if isinstance(batches, ReadSet) else SharedSet(batches, rows.width, kept)
                for name, batches in self._shared.items()
            }
        self._run: Callable[[], None] = lambda: self._evaluate(rows)
        is_read = any(isinstance(each, ReadSet) for each in self._sets.values())
        self._is_captured = self._use_cuda_graph and not is_read and not self._noise.draws
        """Whether the evaluation is one graph, in which nothing depends on a row's values."""
        if self._is_captured:
            self._run = GraphedCallable(self._run, device, "evaluation", warmup_runs=1)

    def _evaluate(self, rows: StackedState) -> None:
        columns, totals = [], []
        for name, batches in self._sets.items():
            if name == "part" and not self._due and not self._is_captured:
                continue
            for logged, total in self._totals(rows, name, batches).items():
                columns.append((name, len(totals), logged))
                totals.append(total)
        self._columns = columns
        self._result = torch.stack(totals) if totals else torch.zeros(0, rows.width)

    def _totals(self, rows: StackedState, name: str, batches: EvaluationSet) -> dict[str, Tensor]:
        totals: dict[str, Tensor] = {}
        count: int | Tensor = 0
        for _, stack in batches:
            taking = [row for row in stack.rows if name == "val" or row in self._due]

            def step(group: list[int], part: StackedState | RowsPart, stack: RowStack = stack) -> None:
                own = stack.part(group).cast(rows.flat.dtype)
                noise = self._noise.of([self._trial_rows[row] for row in group], PASSES[name], stack, rows.flat)
                for logged, value in self._runner.evaluate(part, own.examples, noise, form=own.form).items():
                    totals[logged] = totals.get(logged, 0.0) + _spread(value.double() * stack.size, group, rows)

            if self._is_captured:
                step(list(range(rows.width)), rows)
            else:
                self._runner.in_groups(self._trial_rows, rows, step, stack.rows)
            self._noise.count([self._trial_rows[row] for row in taking], PASSES[name])
            is_whole, sizes = len(stack.rows) == rows.width, torch.full((len(stack.rows),), stack.size)
            count = count + (stack.size if is_whole else _spread(sizes, stack.rows, rows))
        return {logged: total / count for logged, total in totals.items()}


def _spread(values: Tensor, group: list[int], rows: StackedState) -> Tensor:
    """Return values for all rows from those of some, with 0 for the others."""
    if len(group) == rows.width:
        return values.to(rows.flat.device, torch.float64)
    index = torch.tensor(group, device=rows.flat.device)
    zero = torch.zeros(rows.width, dtype=torch.float64, device=index.device)
    return zero.index_add(0, index, values.to(index.device, torch.float64))
