"""What a confirmed model scores on the test set."""

from __future__ import annotations

import math
import re
import zipfile
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dropsearch.core.atomic_io import atomic_write
from dropsearch.core.errors import InputError
from dropsearch.core.records import ComparisonMetric, Monitor
from dropsearch.datasets.data_module import TensorDataModule
from dropsearch.datasets.user_data import defines
from dropsearch.experiment.build import Source
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


@dataclass(frozen=True)
class ExampleResults:
    """What a model scores on each test example, in the order of the test set."""

    loss: Sequence[float]
    """Cross-entropy, in nats."""
    correct: Sequence[float]
    """1 where the class is right, else 0."""

    def write(self, path: Path) -> None:
        """Write the results to an npz file, whole or not at all."""
        with atomic_write(path) as draft, draft.open("wb") as stream:
            np.savez_compressed(stream, loss=np.asarray(self.loss, np.float32), correct=np.asarray(self.correct, bool))

    @classmethod
    def read(cls, path: Path) -> ExampleResults | None:
        """Return the results that a file holds; None where there is no such file or it holds something else."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
                loss, correct = (array("d", held[name].astype(float).ravel().tolist()) for name in ("loss", "correct"))
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return cls(loss, correct) if len(loss) == len(correct) else None


class TestResult(NamedTuple):
    """What a model scores on the test set."""

    loss: float
    """Its loss, or what is monitored in its place."""
    acc: float
    """NaN without one."""
    examples: ExampleResults | None
    """None where a module gives no results by example."""


def accuracy_scores(module: Any, source: TensorDataModule) -> TestResult:
    """Return what a classifier scores on the test set, with its result on each example."""
    batches = source.test_dataloader()
    module = module.to(_device(batches))
    losses, correct = array("d"), array("d")
    with torch.no_grad():
        for *inputs, target in batches:
            logits = module(*inputs)
            losses.extend(F.cross_entropy(logits, target, reduction="none").double().tolist())
            correct.extend((logits.argmax(-1) == target).double().tolist())
    return TestResult(sum(losses) / len(losses), sum(correct) / len(correct), ExampleResults(losses, correct))


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
