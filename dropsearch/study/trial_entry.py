"""A trial's result as a study keeps it: plain values, from which everything can be read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from optuna.trial import FrozenTrial

from dropsearch.core.records import EpochMetrics, State, TrialPhase, TrialResult, TrialSpec

RESULT = "result"
"""The user attribute that holds an entry."""
_FIELDS = tuple(each.name for each in fields(EpochMetrics))


def written(result: TrialResult) -> dict[str, Any]:
    """Return the entry of a result. The trial itself holds its number and its parameters."""
    spec = result.spec
    return {
        "spec": {
            "seed": spec.seed,
            "rates": dict(spec.rates),
            "lr": spec.lr,
            "weight_decay": spec.weight_decay,
            "configuration": spec.configuration,
            **({"variation": spec.variation} if spec.variation else {}),
            **({"hyperparameters": dict(spec.hyperparameters)} if spec.hyperparameters else {}),
        },
        "state": result.state,
        "curve": [_point(point) for point in result.curve],
        "seconds": result.seconds,
        "reason": result.reason,
        "checkpoint": result.checkpoint,
        **({"checkpoint_sha256": result.checkpoint_sha256} if result.checkpoint_sha256 else {}),
        **({"lr_used": list(result.lr_used)} if result.lr_used else {}),
    }


def _point(point: EpochMetrics) -> list[Any]:
    """Return a point's fields in order; those that only a module of the user's own has are left out where empty."""
    values = [getattr(point, name) for name in _FIELDS]
    return values if point.monitored is not None or point.logged else values[:-2]


def read(trial: FrozenTrial, arm: str, phase: TrialPhase, repeat: int = 1) -> TrialResult:
    """Return the result that a trial of an arm holds."""
    entry: Mapping[str, Any] = trial.user_attrs[RESULT]
    spec = TrialSpec(
        arm=arm, number=trial.number, params=dict(trial.params), phase=phase, repeat=repeat, **entry["spec"]
    )
    curve = tuple(EpochMetrics(*point) for point in entry["curve"])
    state: State = entry["state"]
    sha256 = entry.get("checkpoint_sha256", "")
    used = tuple(entry["lr_used"]) if "lr_used" in entry else None
    return TrialResult(spec, state, curve, entry["seconds"], entry["reason"], entry["checkpoint"], sha256, used)
