"""What a confirmed model scores on the test set."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch

from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError
from dropsearch.core.records import ComparisonMetric, Monitor, TrialResult
from dropsearch.datasets.user_data import UserData, defines
from dropsearch.experiment import build, user_module
from dropsearch.experiment.kept_weights import read_weights
from dropsearch.training.logged_steps import evaluate
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


def load(config: Config, source: build.Source, result: TrialResult, path: Path) -> Any:
    """Return the model of a retraining with the weights of its checkpoint, on the CPU, in evaluation mode."""
    weights = read_weights(path, result)
    # Lightning's own reader would need the arguments of the user's constructor, which need not be in the file.
    module = build.module_factory(config, source)(result.spec)
    module.load_state_dict(weights)
    return module.cpu().eval()


def test_scores(config: Config, source: build.Source, result: TrialResult, path: Path) -> tuple[float, float]:
    """Return a model's test loss, or what is monitored in its place, and its test accuracy, NaN without one.

    Raises:
        InputError: The module measures on the test set nothing that is monitored.
    """
    module = load(config, source, result, path)
    if user_module.is_user_module(config):
        return _user_scores(config, source, module)
    batches = source.test_dataloader()
    scores = evaluate(module.to(_device(batches)), batches, "test_step")
    # Steps log float32 means; a share of examples is a whole number of them, and ties must be ties.
    examples = source.sizes["test"]
    return scores["test_loss"], round(scores["test_acc"] * examples) / examples


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
