"""From what a module logged to a point of its trial's curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dropsearch.core.errors import InputError, close_match
from dropsearch.core.records import EpochMetrics, Monitor

_OURS = ("val_loss", "val_acc")


class LoggedMetrics:
    """What a module logs in the validation and elsewhere, apart also where both use one name.

    A Trainer holds all metrics in one mapping. Those that a validation leaves are new objects there.
    """

    def __init__(self) -> None:
        self._earlier: dict[str, Any] = {}
        self._validation: dict[str, Any] | None = None

    def before(self, metrics: Mapping[str, Any]) -> None:
        """Take in what is logged before a validation."""
        self._earlier = dict(metrics)

    def after(self, metrics: Mapping[str, Any]) -> None:
        """Take in what is logged after it."""
        self._validation = {name: value for name, value in metrics.items() if self._earlier.get(name) is not value}

    @property
    def validated(self) -> bool:
        """Whether there was a validation since `elsewhere` was last asked for."""
        return self._validation is not None

    @property
    def validation(self) -> dict[str, float]:
        """What the last validation left, by name."""
        return {name: float(value) for name, value in (self._validation or {}).items()}

    def elsewhere(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Return what a Trainer holds of other passes at the end of an epoch, and forget the validation."""
        validation, self._validation = self._validation or {}, None
        return {name: float(value) for name, value in metrics.items() if validation.get(name) is not value}


def epoch_metrics(
    epoch: int,
    as_trained: float,
    part: Mapping[str, float],
    val: Mapping[str, float],
    monitor: Monitor,
    elsewhere: Mapping[str, float] = MappingProxyType({}),
) -> EpochMetrics:
    """Return an epoch's point.

    Args:
        epoch: Counted from 0.
        as_trained: The mean loss of the epoch's batches, with dropout on.
        part: What the validation step logs on a part of the training set, with dropout off; may be empty.
        val: What it logs on the validation set.
        monitor: Which of it trials are chosen by.
        elsewhere: What it logs in other passes.

    Raises:
        InputError: The module did not log what is monitored.
    """
    if monitor.name not in val:
        if monitor.name not in elsewhere:
            raise InputError(missing_monitor(monitor, val))
        val = {**val, monitor.name: elsewhere[monitor.name]}
    value = monitor.objective(val[monitor.name])
    # A module that calls its loss by another name shows its curves all the same.
    loader = loader_of(monitor.name)
    loss, acc = f"val_loss{loader}", f"val_acc{loader}"
    if loss not in val and monitor.mode == "min":
        loss = monitor.name
    return EpochMetrics(
        epoch=epoch,
        train_loss=part.get(loss, math.nan),
        train_loss_as_trained=as_trained,
        val_loss=val.get(loss, math.nan),
        train_acc=part.get(acc, math.nan),
        val_acc=val.get(acc, math.nan),
        monitored=None if monitor.is_val_loss else value,
        logged=_others(val, elsewhere),
    )


def loader_of(name: str) -> str:
    """Return the end of a metric's name by which Lightning tells loaders apart, ``/dataloader_idx_0``, or nothing."""
    return "".join(name.rpartition("/dataloader_idx_")[1:]) if "/dataloader_idx_" in name else ""


def _others(val: Mapping[str, float], elsewhere: Mapping[str, float]) -> dict[str, float]:
    """Return every metric that has no field of its own, by its name; after ``training/`` where two have the name."""
    trained = {f"training/{name}" if name in val else name: value for name, value in elsewhere.items()}
    return {name: value for name, value in {**trained, **val}.items() if name not in _OURS}


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
