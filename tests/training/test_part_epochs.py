"""In which epochs trials measure the train loss with dropout off."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.datasets.data_module import TensorDataModule
from dropsearch.datasets.user_data import UserData
from dropsearch.training.protocols import GivenTrials, TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from tests.training.vectorized.laws import Case, assert_alike, trials
from tests.user_modules import data as modules
from tests.user_modules import generative, metrics
from tests.user_modules.nets import LitNet

SPEC = TrialSpec("dropout", 0, 0, {}, lr=0.1, weight_decay=0.0)


def measured(epochs: int, every: int, reported: range | None = None, spec: TrialSpec = SPEC) -> list[int]:
    """Return the epochs in which a trial measures it, of those that it reports."""
    settings, curve, found = TrainerSettings(epochs, "cpu"), [], []
    for epoch in reported or range(epochs):
        if settings.measures_part(spec, every, epoch, curve):
            found.append(epoch)
        curve.append(EpochMetrics(epoch, math.nan, math.nan, 1.0))
    return found


@pytest.mark.parametrize(
    ("epochs", "every", "expected"),
    [(5, 1, [0, 1, 2, 3, 4]), (5, 4, [4]), (10, 4, [5, 9]), (8, 4, [3, 7]), (3, 7, [2]), (1, 7, [0]), (6, 6, [5])],
)
def test_they_are_counted_back_from_the_last(epochs: int, every: int, expected: list[int]) -> None:
    assert measured(epochs, every) == expected


def test_one_is_measured_though_few_are_reported() -> None:
    assert measured(9, 4, range(2, 9, 3)) == [5, 8]
    assert measured(10, 4, range(2, 10, 3)) == [5], "the last was not validated"


def test_retrainings_measure_every_epoch() -> None:
    assert measured(5, 4, spec=replace(SPEC, phase="confirm")) == [0, 1, 2, 3, 4]


def test_a_batch_is_measured_for_twenty_trained() -> None:
    source = UserData(modules.Digits(), "data")
    batches = len(source.train_loader(0))
    assert (source.part_every - 1) * batches < 20 <= source.part_every * batches
    assert source.in_rows().part_every == source.part_every  # type: ignore[union-attr]


@pytest.mark.parametrize("make", [LitNet, metrics.Outputs, generative.VAE])
def test_rows_measure_what_sequential_trials_measure(make: Any, tmp_path: Path) -> None:
    """Steps that draw, hooks that collect, rows at different epochs, and a retraining among them."""
    case = Case(make, modules.Digits(), epochs=4)
    case.source.part_every = 2
    specs = [replace(spec, phase="confirm" if spec.number == 1 else "search") for spec in trials(4)]

    def prune(spec: TrialSpec, metrics: EpochMetrics) -> bool:
        return spec.number == 0 and metrics.epoch == 0

    alone = case.sequential(specs, tmp_path, prune=prune)
    known = {n: [p.epoch for p in result.curve if not math.isnan(p.train_loss)] for n, result in alone.items()}
    assert known == {0: [], 1: [0, 1, 2, 3], 2: [1, 3], 3: [1, 3]}
    assert_alike(case.vectorized(specs, tmp_path, width=2, prune=prune), alone)


def watched(source: Any, trainer: dict[str, Any], phase: str) -> tuple[list[Tensor], list[Tensor], TrialResult]:
    """Train a trial; return the examples of its steps, those of its measurements on training examples, its result."""
    trained: list[Tensor] = []
    measured: list[Tensor] = []
    validation = torch.cat([batch[0] for batch in source.val_dataloader()])

    class Noting(LitNet):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            trained.append(batch[0])
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            if not any(torch.equal(batch[0][0], each) for each in validation):
                measured.append(batch[0])
            super().validation_step(batch, batch_idx)

    settings = TrainerSettings(4, "cpu", trainer=lambda: trainer)
    trials = GivenTrials([replace(SPEC, phase=phase)])
    SequentialEngine(lambda _: Noting(), source, settings).run(trials)
    return trained, measured, trials.results[0]


@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.parametrize(
    ("trainer", "steps"),
    [
        ({"limit_train_batches": 2}, 8),
        ({"limit_train_batches": 0.5, "limit_val_batches": 1}, 24),
        ({"overfit_batches": 2}, 8),
    ],
    ids=str,
)
@pytest.mark.parametrize("phase", ["search", "confirm"])
def test_limited_trials_measure_few_examples_that_they_train_on(
    trainer: dict[str, Any], steps: int, phase: str
) -> None:
    """A training set of 13 batches, whose first part would have two."""
    trained, measured, result = watched(UserData(modules.Digits(16, 300), "data"), trainer, phase)
    assert len(trained) == steps
    ended = len(result.curve)
    assert len(measured) == (ended if phase == "confirm" else 1), "one batch each time"
    known = [not math.isnan(point.train_loss) for point in result.curve]
    assert known == ([True] * ended if phase == "confirm" else [False] * (ended - 1) + [True])
    examples = torch.cat(trained)
    assert all(any(torch.equal(each, other) for other in examples) for each in torch.cat(measured))


def test_a_fast_dev_run_measures_one_batch() -> None:
    trained, measured, _ = watched(UserData(modules.Digits(16, 300), "data"), {"fast_dev_run": 2}, "confirm")
    assert (len(trained), len(measured)) == (2, 1)


def test_limited_trials_on_built_in_data_measure_few_batches() -> None:
    source = TensorDataModule("digits", train_size=640, val_fraction=0.2)
    source.setup()
    trained, measured, _ = watched(source, {"limit_train_batches": 1}, "confirm")
    assert len(trained) == len(measured) == 4
    assert all(torch.equal(batch, trained[0]) for batch in measured), "the batch of the first epoch"
