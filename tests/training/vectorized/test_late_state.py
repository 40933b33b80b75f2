"""State that changes late, and in rows that are refilled: each trial has its own, as when it trains alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from tests.training.vectorized.laws import Case, assert_alike, trials
from tests.user_modules.data import Augmented, Digits
from tests.user_modules.late_state import (
    EACH,
    ClockAtSize,
    DrawnLate,
    Halving,
    OwnGenerator,
    SetAtSize,
    SetByCallback,
    Weighted,
)


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
        (SetAtSize, Augmented, r"a step changes self.small, as the first steps did not \(late_state.py:"),
        (ClockAtSize, Augmented, "a step reads the epoch or step of its Trainer, as the first steps did not"),
    ],
)
def test_what_a_step_begins_late_ends_vectorized_training(make: type, data: type, reason: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=reason):
        Case(make, data(), epochs=5).vectorized(trials(2), tmp_path)
