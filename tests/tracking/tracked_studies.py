"""Trials and summaries to be tracked."""

from __future__ import annotations

from typing import Any

from dropsearch.core.records import (
    ARMS,
    ArmOutcome,
    Confirmed,
    EpochMetrics,
    State,
    Summary,
    TestScores,
    TrialResult,
    TrialSpec,
)

EXPERIMENT = "mlp on digits"
DATA = {
    "name": "digits",
    "digest": "0123456789abcdef",
    "source": "scikit-learn",
    "sizes": {"train": 1000, "val": 400, "test": 397},
    "input_shape": (1, 8, 8),
    "classes": 10,
}


def make_spec(number: int = 3, arm: str = "dropout", **changes: Any) -> TrialSpec:
    given = {"seed": 100 + number, "rates": {"input.dropout": 0.1, "hidden1.dropout#2": 0.5}}
    return TrialSpec(arm, number, **(given | {"lr": 1e-3, "weight_decay": 1e-4} | changes))


def make_curve(epochs: int = 4) -> tuple[EpochMetrics, ...]:
    return tuple(
        EpochMetrics(i, 1.0 / (i + 1), 1.5 / (i + 1), 0.5 + (i - 2) ** 2, 0.5 + i / 100, 0.4 + i / 100)
        for i in range(epochs)
    )


def make_result(number: int = 3, state: State = "COMPLETE", **changes: Any) -> TrialResult:
    spec = changes.pop("spec", None) or make_spec(number)
    return TrialResult(spec, state, **({"curve": make_curve(), "seconds": 2.5} | changes))


def make_summary(**changes: Any) -> Summary:
    trials = (make_result(3), make_result(4, "PRUNED"))
    spec = make_spec(0, phase="confirm", configuration=3)
    winner = Confirmed(3, (make_result(spec=spec),))
    scores = TestScores("2026-01-01T00:00:00Z", loss=(0.2, 0.4), acc=(0.9, 0.8))
    arms = {
        "none": ArmOutcome(ARMS["none"], ()),
        "dropout": ArmOutcome(ARMS["dropout"], trials, (winner,), winner, scores),
    }
    given = {"study": "first", "model": "mlp", "data": "digits", "seed": 0, "versions": {"torch": "2.13"}}
    given |= {"seconds": 12.0, "engine": "sequential", "sites": (), "arms": arms, "comparisons": ()}
    return Summary(**(given | changes))
