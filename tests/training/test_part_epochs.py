"""In which epochs trials measure the train loss with dropout off."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dropsearch.core.records import EpochMetrics, TrialSpec
from dropsearch.datasets.user_data import UserData
from dropsearch.training.protocols import TrainerSettings
from tests.training.vectorized.laws import Case, assert_alike, trials
from tests.user_modules import data as modules
from tests.user_modules import generative, metrics
from tests.user_modules.nets import LitNet

SPEC = TrialSpec("dropout", 0, 0, {}, lr=0.1, weight_decay=0.0)


@dataclass
class Data:
    part_every: int


def measured(epochs: int, every: int, reported: range | None = None, spec: TrialSpec = SPEC) -> list[int]:
    """Return the epochs in which a trial measures it, of those that it reports."""
    settings, curve, found = TrainerSettings(epochs, "cpu"), [], []
    for epoch in reported or range(epochs):
        if settings.measures_part(spec, Data(every), epoch, curve):
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
