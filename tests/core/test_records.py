"""Properties of records."""

from __future__ import annotations

import dataclasses
import math

import pytest

from dropsearch.core.records import INTERRUPTED, Confirmed, EpochMetrics, State, TrialResult, TrialSpec

CURVE = (EpochMetrics(0, 1.0, 1.0, 0.5), EpochMetrics(1, 1.0, 1.0, 0.25))


def result(state: State = "COMPLETE", reason: str = "") -> TrialResult:
    return TrialResult(TrialSpec("none", 0, 1, {}, 1e-3, 0.0), state, CURVE, 1.0, reason)


def test_failed_retraining_has_infinite_loss() -> None:
    confirmed = Confirmed(0, (result(), result("FAIL", "diverged: val_loss=nan after epoch 2")))
    assert confirmed.val_loss == (0.25, math.inf)
    assert confirmed.mean_val_loss == math.inf


def test_the_best_retraining_is_that_of_the_lowest_objective() -> None:
    better = dataclasses.replace(result(), curve=(EpochMetrics(0, 1.0, 1.0, 0.1),))
    assert Confirmed(0, (result(), better, result())).best is better


@pytest.mark.parametrize(
    ("state", "reason", "interrupted"),
    [("FAIL", INTERRUPTED, True), ("FAIL", "KeyError: 'x'", False), ("PRUNED", INTERRUPTED, False)],
)
def test_interrupted(state: State, reason: str, interrupted: bool) -> None:
    assert result(state, reason).interrupted is interrupted
