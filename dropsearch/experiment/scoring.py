"""What a confirmed model scores on the test set."""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from dropsearch.core.errors import InputError
from dropsearch.core.records import ComparisonMetric, Monitor
from dropsearch.datasets.data_module import TensorDataModule
from dropsearch.datasets.user_data import defines
from dropsearch.experiment.build import Source
from dropsearch.training.logged_steps import evaluate
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import quiet_lightning
from dropsearch.training.trainers import make_trainer

_VALIDATION = re.compile(r"validation|valid|val|dev", re.IGNORECASE)


def monitored_metric(monitor: Monitor, has_test: bool) -> ComparisonMetric:
    """Return what arms are compared by where that is what is monitored: on the test set where there is one."""
    name = on_test(monitor) if has_test else monitor.name
    return ComparisonMetric(
        name,
        "test_loss" if has_test else "val_loss",
        name.replace("_", " "),
        percent=False,
        higher_is_better=monitor.mode == "max",
    )


def on_test(monitor: Monitor) -> str:
    """Return the name by which a module logs on the test set what is monitored at validation."""
    name, found = _VALIDATION.subn(lambda word: "TEST" if word[0].isupper() else "test", monitor.name, count=1)
    return name if found else f"test_{monitor.name}"


def accuracy_scores(module: Any, source: TensorDataModule) -> tuple[float, float]:
    """Return the test loss and the test accuracy of a model with a `test_step` that logs both."""
    batches = source.test_dataloader()
    scores = evaluate(module.to(_device(batches)), batches, "test_step")
    # Steps log float32 means; a share of examples is a whole number of them, and ties must be ties.
    examples = source.sizes["test"]
    return scores["test_loss"], round(scores["test_acc"] * examples) / examples


def monitored_scores(name: str, module: Any, source: Source, settings: TrainerSettings) -> tuple[float, float]:
    """Return what a model has of what is monitored on the test set, and its test accuracy, NaN without one.

    Raises:
        InputError: The module, which reports call `name`, logs nothing of the kind.
    """
    wanted = on_test(settings.monitor)
    scores = _measured(module, source, settings, "test") if defines(module, "test_step") else {}
    if wanted not in scores:  # validation_step measures it on any examples
        scores = _measured(module, source, settings, "val")
        wanted = settings.monitor.name
    if wanted not in scores:
        raise InputError(f"model={name} must log {wanted} for the test set, and logs {', '.join(scores)}")
    return scores[wanted], scores.get("test_acc", scores.get("val_acc", math.nan))


def _measured(module: Any, source: Source, settings: TrainerSettings, step: str) -> dict[str, float]:
    with quiet_lightning():
        trainer = make_trainer(module, settings, [])
        (trainer.test if step == "test" else trainer.validate)(module, verbose=False, **source.for_test(step))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _device(batches: object) -> torch.device:
    return next(iter(batches))[0].device  # type: ignore[call-overload]
