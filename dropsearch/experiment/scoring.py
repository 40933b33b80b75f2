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

from dropsearch.config.schema import Config
from dropsearch.core.atomic_io import atomic_write
from dropsearch.core.errors import InputError
from dropsearch.core.records import ComparisonMetric, Monitor, TrialSpec
from dropsearch.datasets.user_data import UserData, defines
from dropsearch.experiment import build, user_module
from dropsearch.models import Classifier
from dropsearch.training.sequential import quiet_lightning
from dropsearch.training.trainers import make_trainer

_VALIDATION = re.compile(r"validation|valid|val|dev", re.IGNORECASE)


def has_test(source: build.Source) -> bool:
    """Return whether there is a test set."""
    return not isinstance(source, UserData) or source.test_dataloader() is not None


def comparison_metric_of(config: Config, source: build.Source) -> ComparisonMetric:
    """Return what arms are compared by: the accuracy of our models, else what is monitored, on test where it can be."""
    if not user_module.is_user_module(config):
        return ComparisonMetric()
    monitor = build.monitor(config)
    better, scores = monitor.mode == "max", "test_loss" if has_test(source) else "val_loss"
    name = on_test(monitor) if has_test(source) else monitor.name
    return ComparisonMetric(name, scores, name.replace("_", " "), percent=False, higher_is_better=better)


def on_test(monitor: Monitor) -> str:
    """Return the name by which a module logs on the test set what is monitored at validation."""
    name, found = _VALIDATION.subn(lambda word: "TEST" if word[0].isupper() else "test", monitor.name, count=1)
    return name if found else f"test_{monitor.name}"


def load(config: Config, source: build.Source, spec: TrialSpec, path: Path) -> Any:
    """Return the model of a trial with the weights of a checkpoint, on the CPU, in evaluation mode."""
    if not user_module.is_user_module(config):
        return Classifier.load_from_checkpoint(path, map_location="cpu").eval()
    module = build.module_factory(config, source)(spec)
    # Lightning's own reader would need the arguments of the user's constructor, which need not be in the file.
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=False)["state_dict"])
    return module.eval()


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


def test_scores(config: Config, source: build.Source, spec: TrialSpec, path: Path) -> TestResult:
    """Return what a model scores on the test set.

    Raises:
        InputError: The module measures on the test set nothing that is monitored.
    """
    module = load(config, source, spec, path)
    if user_module.is_user_module(config):
        return TestResult(*_user_scores(config, source, module), None)
    batches = source.test_dataloader()
    module = module.to(_device(batches))
    losses, correct = array("d"), array("d")
    with torch.no_grad():
        for *inputs, target in batches:
            logits = module(*inputs)
            losses.extend(F.cross_entropy(logits, target, reduction="none").double().tolist())
            correct.extend((logits.argmax(-1) == target).double().tolist())
    return TestResult(sum(losses) / len(losses), sum(correct) / len(correct), ExampleResults(losses, correct))


def _user_scores(config: Config, source: build.Source, module: Any) -> tuple[float, float]:
    monitor = build.monitor(config)
    wanted = on_test(monitor)
    scores = _measured(config, source, module, "test") if defines(module, "test_step") else {}
    if wanted not in scores:  # validation_step measures it on any examples
        scores = _measured(config, source, module, "val")
        wanted = monitor.name
    if wanted not in scores:
        raise InputError(f"model={config.model.name} must log {wanted} for the test set, and logs {', '.join(scores)}")
    return scores[wanted], scores.get("test_acc", scores.get("val_acc", math.nan))


def _measured(config: Config, source: build.Source, module: Any, step: str) -> dict[str, float]:
    given = source.for_test(step) if isinstance(source, UserData) else {"dataloaders": source.test_dataloader()}
    with quiet_lightning():
        trainer = make_trainer(module, build.settings(config), [])
        (trainer.test if step == "test" else trainer.validate)(module, verbose=False, **given)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _device(batches: object) -> torch.device:
    return next(iter(batches))[0].device  # type: ignore[call-overload]
