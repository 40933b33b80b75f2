"""From what a module logged to a point of its trial's curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dropsearch.core.errors import InputError, close_match
from dropsearch.core.records import EpochMetrics, Monitor

_OURS = ("val_loss", "val_acc")


class ValidationNames:
    """Which of the metrics that a Trainer holds come from the validation: those that are new after the first one."""

    def __init__(self) -> None:
        self._earlier: set[str] = set()
        self._found: set[str] | None = None

    def before(self, metrics: Mapping[str, Any]) -> None:
        """Take in what is logged before a validation."""
        self._earlier = set(metrics)

    def after(self, metrics: Mapping[str, Any]) -> None:
        """Take in what is logged after it."""
        if self._found is None:
            self._found = set(metrics) - self._earlier

    def values(self, metrics: Mapping[str, Any], monitored: str = "") -> dict[str, float]:
        """Return the validation's metrics, and what is monitored whoever logged it."""
        names = (self._found or set()) | {monitored}
        return {name: float(value) for name, value in metrics.items() if name in names}


def epoch_metrics(
    epoch: int, as_trained: float, part: Mapping[str, float], val: Mapping[str, float], monitor: Monitor
) -> EpochMetrics:
    """Return an epoch's point.

    Args:
        epoch: Counted from 0.
        as_trained: The mean loss of the epoch's batches, with dropout on.
        part: What the validation step logs on a part of the training set, with dropout off; may be empty.
        val: What it logs on the validation set.
        monitor: Which of it trials are chosen by.

    Raises:
        InputError: The module did not log what is monitored.
    """
    if monitor.name not in val:
        raise InputError(missing_monitor(monitor, val))
    value = monitor.objective(val[monitor.name])
    # A module that calls its loss by another name shows its curves all the same.
    loss = "val_loss" if "val_loss" in val or monitor.mode == "max" else monitor.name
    return EpochMetrics(
        epoch=epoch,
        train_loss=part.get(loss, math.nan),
        train_loss_as_trained=as_trained,
        val_loss=val.get(loss, math.nan),
        train_acc=part.get("val_acc", math.nan),
        val_acc=val.get("val_acc", math.nan),
        monitored=None if monitor.is_val_loss else value,
        logged={name: value for name, value in val.items() if name not in _OURS},
    )


def missing_monitor(monitor: Monitor, logged: Mapping[str, float], elsewhere: Mapping[str, str] | None = None) -> str:
    """Say in one line that a module does not log what is monitored, and what it logs.

    Args:
        monitor: What is monitored.
        logged: What the module logs at validation.
        elsewhere: What it logs that no validation is left with, by name: why.
    """
    names = ", ".join(sorted(logged)) or "nothing"
    why = (elsewhere or {}).get(monitor.name)
    return f'monitor must be a metric that the module logs at validation, got "{monitor.name}"' + (
        f", which {why}; at validation it logs {names}"
        if why
        else f"{close_match(monitor.name, logged)}: it logs {names}"
    )


def diverged(metrics: EpochMetrics, monitor: Monitor) -> str:
    """Say that an epoch ended with a number that is not finite."""
    return f"diverged: {monitor.name}={monitor.objective(metrics.objective)} after epoch {metrics.epoch + 1}"
