"""State that changes late, and in rows that are refilled: each trial has its own, as when it trains alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dropsearch.core.errors import UnsupportedError
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.training.vectorized import shared_state
from dropsearch.training.vectorized.engine import VectorizedEngine
from dropsearch.training.vectorized.watched_parts import differing_attributes
from tests.training.conftest import Queue
from tests.training.vectorized.laws import Case, assert_alike, trials
from tests.user_modules.data import Augmented, Digits
from tests.user_modules.late_state import (
    EACH,
    ClassOfRate,
    ClockAtSize,
    DrawnLate,
    FilledAndRead,
    FunctionOfRate,
    GlobalAtSize,
    Halving,
    MethodOfRate,
    NameOfRate,
    OfRate,
    OptionOfRate,
    OwnGenerator,
    PartialOfRate,
    SetAtSize,
    SetByCallback,
    Weighted,
)
from tests.user_modules.nets import LitNet


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, TrialResult]:
    """Return trials that train alone. All modules here compute the same."""
    return Case(Weighted, Digits(), epochs=5).sequential(trials(3)[:2], tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("make", EACH)
def test_late_state_is_of_its_trial(make: type, alone: dict[int, TrialResult], tmp_path: Path) -> None:
    def prune(spec: TrialSpec, metrics: EpochMetrics) -> bool:
        return spec.number == 2 and metrics.epoch == 1

    callbacks: dict[str, Any] = {"callbacks": [Halving()]} if make is SetByCallback else {}
    case = Case(make, Digits(), epochs=5, **callbacks)
    rows = case.vectorized(trials(3)[::-1], tmp_path, width=2, prune=prune)
    assert rows.pop(2).state == "PRUNED", "its row is not refilled beside another"
    assert_alike(rows, alone)


@pytest.mark.falls_back
@pytest.mark.parametrize(
    ("make", "data", "reason"),
    [
        (DrawnLate, Digits, "a step draws from `random` or"),
        (OwnGenerator, Digits, r"a step changes self.generator by drawing from it \(late_state.py:"),
        (
            FilledAndRead,
            Digits,
            r"a step changes self.filled in place and is taken again, as the first .* \(late_state.py:",
        ),
        (GlobalAtSize, Augmented, r"a step changes the global SMALL, which no row has for itself \(late_state.py:"),
        (SetAtSize, Augmented, r"a step changes self.small, as the first steps did not \(late_state.py:"),
        (OfRate, Digits, "self.kind differs between trials, as it did not in the first ones"),
        (NameOfRate, Digits, "self.kind differs between trials, as it did not in the first ones"),
        (OptionOfRate, Digits, "self.kind differs between trials, as it did not in the first ones"),
        (ClockAtSize, Augmented, "a step reads the epoch or step of its Trainer, as the first steps did not"),
    ],
)
def test_what_a_step_begins_late_ends_vectorized_training(make: type, data: type, reason: str, tmp_path: Path) -> None:
    case, specs = Case(make, data(), epochs=5), trials(3)
    rows, open_trials = case.source.in_rows(), Queue(list(specs))
    engine = VectorizedEngine(case.make_module, rows, case.settings, 2, lambda spec: tmp_path / f"v{spec.number}")
    engine.run(open_trials)
    assert re.match(reason, engine.failure), engine.failure
    assert_alike(open_trials.results, case.sequential(specs, tmp_path))


@pytest.mark.parametrize(
    "make", [OfRate, NameOfRate, OptionOfRate, FunctionOfRate, PartialOfRate, ClassOfRate, MethodOfRate]
)
def test_what_constructors_choose_by_the_learning_rate_is_of_its_trial(make: type, tmp_path: Path) -> None:
    case, specs = Case(make, Digits()), trials(3)[::-1]
    assert_alike(case.vectorized(specs, tmp_path, width=2), case.sequential(specs, tmp_path))


class Configured(LitNet):
    """Asks for its learning rate in a method of its own."""

    def configure_optimizers(self) -> Any:
        return self.make_optimizer()

    def make_optimizer(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


class Penalized(Configured):
    """Does so in a step too."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + self.hparams["lr"]


def test_only_what_steps_read_is_of_each_trial() -> None:
    assert differing_attributes(Configured(lr=1e-3), Configured(lr=1e-2)) == set()
    assert differing_attributes(Penalized(lr=1e-3), Penalized(lr=1e-2)) == {(("",), "_hparams")}


class Scaled(LitNet):
    """Reads a value of its class."""

    factor = 2.0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.factor * super().training_step(batch, batch_idx)


def test_the_source_of_a_class_is_read_only_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes tens of milliseconds for a class of a large file, and a transformer has a hundred of them."""
    asked: list[type] = []
    monkeypatch.setattr(shared_state, "place_of_class", lambda kind: str(asked.append(kind)))
    state = shared_state.SharedState({"": Scaled()})
    before = state.snapshot()
    assert asked == []
    monkeypatch.setattr(Scaled, "factor", 3.0)
    with pytest.raises(UnsupportedError, match=r"a step changes Scaled\.factor"):
        state.require_same(before)
    assert asked == [Scaled]
