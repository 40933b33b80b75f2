"""Conversion of a module's logged values to the epoch metrics of its trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lightning import Callback, LightningModule, Trainer

from dropsearch.core.errors import InputError, close_match
from dropsearch.core.records import EpochMetrics, Monitor

_OURS = ("val_loss", "val_acc")


class LoggedMetrics(Callback):
    """Notes the metrics logged in validation, apart from those logged elsewhere under the same name.

    A Trainer has all metrics in one mapping, in which those of the last validation are new objects.
    """

    def __init__(self) -> None:
        self._earlier: dict[str, Any] = {}
        self._validation: dict[str, Any] | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what was logged before a validation."""
        self._earlier = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take what the validation logged."""
        if not trainer.sanity_checking:
            metrics, earlier = trainer.callback_metrics, self._earlier
            self._validation = {name: value for name, value in metrics.items() if earlier.get(name) is not value}

    @property
    def validated(self) -> bool:
        """Whether there was a validation since the last call of `elsewhere`."""
        return self._validation is not None

    @property
    def validation(self) -> dict[str, float]:
        """Metrics of the last validation by name."""
        return {name: float(value) for name, value in (self._validation or {}).items()}

    def elsewhere(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Return a Trainer's metrics of other passes at the end of an epoch, and reset the validation."""
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
    """Return the metrics of an epoch.

    `part` are validation metrics on a part of the training set, with dropout off, which may be empty; `elsewhere` those
    logged in other passes. Raises `InputError` if the monitored metric is in neither.
    """
    if monitor.name not in val:
        if monitor.name not in elsewhere:
            raise InputError(missing_monitor(monitor, val))
        val = {**val, monitor.name: elsewhere[monitor.name]}
    value = monitor.objective(val[monitor.name])
    # A loss with another name is shown as well.
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
    """Return the suffix that Lightning adds for the loader, ``/dataloader_idx_0``, or an empty string."""
    return "".join(name.rpartition("/dataloader_idx_")[1:]) if "/dataloader_idx_" in name else ""


def _others(val: Mapping[str, float], elsewhere: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics without a field by name, with the prefix ``training/`` for duplicate names."""
    trained = {f"training/{name}" if name in val else name: value for name, value in elsewhere.items()}
    return {name: value for name, value in {**trained, **val}.items() if name not in _OURS}


def missing_monitor(monitor: Monitor, logged: Mapping[str, float], elsewhere: Mapping[str, str] | None = None) -> str:
    """Return a message that a module does not log the monitored metric in validation, with those that it logs.

    `elsewhere` gives other logged metrics by name, with the reason why they are not available after a validation.
    """
    names = ", ".join(sorted(logged)) or "nothing"
    if by_loader := [name for name in sorted(logged) if name.startswith(f"{monitor.name}/dataloader_idx_")]:
        return (
            f'monitor must name one validation loader, got "{monitor.name}", which is logged for each of several: set '
            f"monitor={by_loader[0]}{''.join(f' or {name}' for name in by_loader[1:])}"
        )
    why = (elsewhere or {}).get(monitor.name)
    return f'monitor must be a metric that the module logs in validation, got "{monitor.name}"' + (
        f", which {why}; in validation it logs {names}"
        if why
        else f"{close_match(monitor.name, logged)}: it logs {names}"
    )


def diverged(metrics: EpochMetrics, monitor: Monitor) -> str:
    """Return the reason of a trial that diverged in an epoch."""
    return f"diverged: {monitor.name}={monitor.objective(metrics.objective)} after epoch {metrics.epoch + 1}"
