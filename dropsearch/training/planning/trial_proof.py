"""Comparison of two whole trials on a few batches, trained vectorized and by plain Lightning."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dropsearch.core.batches import examples_in, examples_of, mapped
from dropsearch.core.records import EpochMetrics, TrialSpec
from dropsearch.core.user_errors import place_of_class
from dropsearch.datasets.given_loaders import prepared
from dropsearch.datasets.keyed_loader import first_batches, keying_of
from dropsearch.datasets.loaders import TensorLoader
from dropsearch.datasets.user_parts import BatchHooks
from dropsearch.training.protocols import DataSource, GivenTrials, TrainerSettings, is_in_memory, validates_by_row
from dropsearch.training.sequential import ModuleFactory, SequentialEngine
from dropsearch.training.vectorized.held_once import NotHeldOnceError
from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.trials import VectorizedTrials

EPOCHS = 2
BATCHES = 2
EXAMPLES = 64
"""Number of examples of a validation batch, of those in memory."""
TOLERANCE = 1e-9
"""Maximum difference in float64, relative to the value, or absolute if that is below 1."""


def trials_difference(
    make_module: ModuleFactory,
    data: DataSource,
    settings: TrainerSettings,
    specs: tuple[TrialSpec, TrialSpec],
) -> str:
    """Return the first difference between two trials trained vectorized and sequentially, or an empty string.

    Both train for two epochs of two batches in float64, with hooks, metric objects and schedules. Lightning calls the
    batch transfer hooks of the data module in sequential training, as it does in a search. Their curves are
    compared, which depend on all weights.
    """
    few, read = _FewBatches(data, moved=True), _FewBatches(data, moved=False)
    settings = dataclasses.replace(
        settings, max_epochs=EPOCHS, accelerator="cpu", precision="64-true", shared_masks=False, convolutions="grouped"
    )
    kind = type(make_module(specs[0]))
    name, place = kind.__name__, place_of_class(kind)
    together, alone = _vectorized(make_module, few, settings, specs), GivenTrials(specs)
    SequentialEngine(make_module, read, settings).run(alone)
    for spec in specs:
        found, expected = together.results[spec.number], alone.results[spec.number]
        if expected.state != "COMPLETE" and expected.reason != found.reason:  # of equal ones, both diverge
            return f"{name} fails in sequential training: {expected.reason}"
        if found.state != expected.state or len(found.curve) != len(expected.curve):
            return f"{name} ends otherwise in vectorized training: {found.reason or found.state + place}"
        for one, other in zip(found.curve, expected.curve, strict=True):
            if difference := _difference(one, other):
                return f"{difference} of {name} differs between vectorized and sequential training{place}"
    return ""


def _vectorized(
    make_module: ModuleFactory, data: DataSource, settings: TrainerSettings, specs: tuple[TrialSpec, TrialSpec]
) -> GivenTrials:
    """Return the trials trained vectorized. As in the search, rows get their own frozen parts if a step changes them.

    Raises:
        Exception: A step fails.
    """
    together = GivenTrials(specs)
    trials = VectorizedTrials(RowSource(make_module, data, settings, together), len(specs))
    holds_once = trials.stack.holds_once
    try:
        _fit(trials)
    except Exception as error:
        if not holds_once and not isinstance(error, NotHeldOnceError):
            raise
        together = GivenTrials(specs)
        _fit(VectorizedTrials(RowSource(make_module, data, settings, together), len(specs), holds_once=False))
    return together


def _fit(trials: VectorizedTrials) -> None:
    trials.fit()
    for _, error in trials.apart:
        raise error


def _difference(found: EpochMetrics, expected: EpochMetrics) -> str:
    ours, theirs = _values(found), _values(expected)
    for name in {**theirs, **ours}:
        value, reference = ours.get(name, math.nan), theirs.get(name, math.nan)
        is_same = value == reference or (math.isnan(value) and math.isnan(reference))
        if not is_same and not abs(value - reference) <= TOLERANCE * max(abs(reference), 1.0):
            return f"{name} ({value:.6g} instead of {reference:.6g})"
    return ""


def _values(point: EpochMetrics) -> dict[str, float]:
    fields = ("train_loss", "train_loss_as_trained", "val_loss", "train_acc", "val_acc", "objective")
    logged = {f"the logged {name}": value for name, value in point.logged.items()}
    return {**{name: getattr(point, name) for name in fields}, **logged}


class _Batches:
    """A list of batches as a loader; each epoch gets copies, which hooks and steps may change in place."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return map(copy.deepcopy, self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class _FewBatches:
    """The first batches of a data source, on the CPU, in double precision.

    If they are `moved`, the batch transfer hooks of the data module have changed them; else Lightning calls these.
    """

    def __init__(self, data: Any, *, moved: bool) -> None:
        hooks = getattr(data, "hooks", None)
        self._hooks: BatchHooks | None = hooks if hooks is not None and hooks.names else None
        self.changes_batches = self._hooks is not None and not moved
        self._data, self._moved = data if self._hooks is None else data.before_hooks(), moved
        self.reads_by_row, self.device = not is_in_memory(data), torch.device("cpu")
        self.validates_by_row = validates_by_row(data)
        self.datamodule = getattr(data, "datamodule", None)

    def for_trial(self, spec: TrialSpec) -> _FewBatches:
        return self

    def for_trainer(self, seed: int) -> dict[str, Any]:
        val = self.val_loader(seed) if self.validates_by_row else self.val_dataloader()
        loaders = {"train_dataloader": self.train_loader(seed), "val_dataloader": val}
        if self.datamodule is None:
            return {"train_dataloaders": loaders["train_dataloader"], "val_dataloaders": loaders["val_dataloader"]}
        twin = prepared(self.datamodule, **loaders)
        if self._hooks is not None:  # what they create anew is in the default type
            own = getattr(twin, self._hooks.names[-1])
            vars(twin)[self._hooks.names[-1]] = lambda batch, index: mapped(own(batch, index), double)
        return {"datamodule": twin}

    def _prepared(self, batch: Any) -> Any:
        """Return a batch in double precision, after the hooks if it is to be moved."""
        batch = mapped(batch, double)
        if self._hooks is None or not self._moved:
            return batch
        return mapped(self._hooks(batch), double)

    def _keyed(self, loader: Any) -> Any:
        """Return a loader returned by `keyed` with prepared batches; others are returned unchanged."""
        if (keying := keying_of(loader)) is not None:
            prepare = keying.prepare
            keying.prepare = lambda batch: self._prepared(prepare(batch))
        return loader

    def _list(self, loader: Any, count: int) -> _Batches:
        batches = (batch if self.reads_by_row else _few(batch) for batch in itertools.islice(loader, count))
        return _Batches([*map(self._prepared, batches)])

    def train_loader(self, seed: int) -> Any:
        """Return a few examples in an order by seed and epoch, or a loader's first batches."""
        if self.reads_by_row:
            return first_batches(self._keyed(self._data.train_loader(seed)), BATCHES)
        loader = self._data.train_loader(0)  # the same examples for all trials, each in its own order
        # whole batches, since parts of them may contain the batch size
        order, size = loader.order(0), loader.batch_size
        tensors = tuple(double(t[order[: BATCHES * size].to(t.device)]) for t in loader.tensors)
        return TensorLoader(tensors, size, seed=seed, drop_last=True, form=loader.form)

    def val_loader(self, seed: int) -> Any:
        return first_batches(self._keyed(self._data.val_loader(seed)), BATCHES)

    def train_part_loader(self) -> _Batches:
        """Return the first batch of the part of the training set."""
        return self._list(self._data.train_part_loader(), 1)

    def val_dataloader(self) -> _Batches:
        return self._list(self._data.val_dataloader(), BATCHES)


def _few(batch: Any) -> Any:
    """Return the first examples of a batch, where all of its tensors have one entry an example."""
    is_long = (examples_in(batch) or 0) > EXAMPLES and len({len(part) for part in examples_of(batch)}) == 1
    return mapped(batch, lambda part: part[:EXAMPLES] if is_long and part.dim() else part)


def double(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU, in float64 if it is real, since Lightning does not convert all batches."""
    return tensor.cpu().double() if tensor.is_floating_point() else tensor.cpu()
