"""User attributes of Optuna's trials: key, process and, once ended, the whole result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from dropsearch.core.errors import InputError
from dropsearch.core.records import INTERRUPTED, EpochMetrics, State, TrialPhase, TrialResult, TrialSpec
from dropsearch.study.retrainings import RETRAININGS

TrialKey = tuple[int, ...]
"""Key of a trial, with the fields of `TRIAL_KEYS`: `(index,)` in a search. One trial counts for a key."""
RESULT = "result"
"""User attribute with the result as JSON, which needs a third of the memory of Python values."""
OWNER = "owner"
"""User attribute with the process that trains the trial."""
WORKER = "worker"
"""User attribute of a trial whose process only trains, so that another process tracks its result."""
TRIAL_KEYS: Mapping[TrialPhase, tuple[str, ...]] = {
    "search": ("index",),
    "confirm": ("configuration", "seed"),
    **dict.fromkeys(RETRAININGS, ("configuration", "variation", "seed")),
}
"""User attributes that form the key of a trial, by phase."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_FIELDS = tuple(each.name for each in fields(EpochMetrics))


def key(trial: FrozenTrial, phase: TrialPhase) -> TrialKey | None:
    """Return the key of a trial, or None if another program created it."""
    attrs, names = trial.user_attrs, TRIAL_KEYS[phase]
    return tuple(attrs[name] for name in names) if all(name in attrs for name in names) else None


def owner(trial: FrozenTrial) -> str:
    """Return the process that trains or trained a trial; empty if unknown."""
    return trial.user_attrs.get(OWNER, "")


def is_stopped(trial: FrozenTrial) -> bool:
    """Return whether a trial's result is that of an interrupted trial."""
    return RESULT in trial.user_attrs and _entry(trial)["reason"] == INTERRUPTED


def _entry(trial: FrozenTrial) -> Mapping[str, Any]:
    """Return the result stored in a trial."""
    try:
        entry = json.loads(trial.user_attrs[RESULT])
        _ = entry["reason"], entry["spec"], entry["curve"]  # all three are there
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"trial {trial.number} of the study must have a result of this version of dropsearch, and its attribute "
            f"{RESULT} is something else: set another study.name or study.storage"
        ) from error
    return entry


def running(
    number: int,
    attrs: Mapping[str, Any],
    params: Mapping[str, Any] | None = None,
    distributions: Mapping[str, BaseDistribution] | None = None,
) -> FrozenTrial:
    """Return a running trial that is not in the storage yet, with a unique id."""
    return FrozenTrial(
        number=number,
        trial_id=-1 - number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params=dict(params or {}),
        distributions=dict(distributions or {}),
        user_attrs=dict(attrs),
        system_attrs={},
        intermediate_values={},
    )


def outcome(result: TrialResult, trial: FrozenTrial) -> tuple[TrialState, float | None]:
    """Return the state and value of an Optuna trial; a pruned trial has the value at which it was pruned."""
    if result.state == "COMPLETE":
        return TrialState.COMPLETE, result.best.objective if result.best else None
    last = trial.intermediate_values.get(trial.last_step or 0, math.nan)
    if result.state == "PRUNED" and not math.isnan(last):
        return TrialState.PRUNED, last
    return TrialState[result.state], None


def written(result: TrialResult) -> str:
    """Return a result as JSON, without number and parameters, which Optuna's trial has."""
    spec = result.spec
    entry = {
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
    return json.dumps(entry, separators=(",", ":"))


def _point(point: EpochMetrics) -> list[Any]:
    """Return the fields of a point in order, without the last two if empty, which only user modules have."""
    values = [getattr(point, name) for name in _FIELDS]
    return values if point.monitored is not None or point.logged else values[:-2]


def read(trial: FrozenTrial, arm: str, phase: TrialPhase, repeat: int = 1) -> TrialResult:
    """Return the result of an ended trial of an arm."""
    entry = _entry(trial)
    spec = TrialSpec(
        arm=arm, number=trial.number, params=dict(trial.params), phase=phase, repeat=repeat, **entry["spec"]
    )
    curve = tuple(EpochMetrics(*point) for point in entry["curve"])
    state: State = entry["state"]
    sha256 = entry.get("checkpoint_sha256", "")
    used = tuple(entry["lr_used"]) if "lr_used" in entry else None
    return TrialResult(spec, state, curve, entry["seconds"], entry["reason"], entry["checkpoint"], sha256, used)
