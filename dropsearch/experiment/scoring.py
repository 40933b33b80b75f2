"""Scores of a confirmed model on the test set."""

from __future__ import annotations

import copy
import math
import re
import zipfile
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import Callback

from dropsearch.core.atomic_io import atomic_write
from dropsearch.core.errors import InputError
from dropsearch.core.global_state import seeded
from dropsearch.core.records import ComparisonMetric, Monitor
from dropsearch.core.user_errors import described
from dropsearch.datasets.user_loaders import example_groups
from dropsearch.datasets.user_parts import defines
from dropsearch.experiment.build import Source
from dropsearch.training.epoch_metrics import loader_of
from dropsearch.training.logged_steps import evaluate
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.trainers import make_trainer, quiet_lightning

SAME = 1e-4
"""Relative tolerance of two ways to compute a metric, due to the order of float32 sums."""
_VALIDATION = re.compile(r"validation|valid|val|dev", re.IGNORECASE)


def monitored_metric(monitor: Monitor, has_test: bool) -> ComparisonMetric:
    """Return the monitored metric as comparison metric, on the test set if there is one."""
    name = on_test(monitor) if has_test else monitor.name
    return ComparisonMetric(
        name,
        "test_loss" if has_test else "val_loss",
        name.replace("_", " "),
        percent=False,
        higher_is_better=monitor.mode == "max",
        unit=monitor.unit,
        loss_unit=monitor.unit if monitor.is_val_loss else "",
    )


def on_test(monitor: Monitor) -> str:
    """Return the name of the monitored metric on the test set."""
    name, found = _VALIDATION.subn(lambda word: "TEST" if word[0].isupper() else "test", monitor.name, count=1)
    return name if found else f"test_{monitor.name}"


@dataclass(frozen=True)
class ExampleResults:
    """Scores of a model on each test example, in the order of the test set, or on each group of examples."""

    loss: Sequence[float]
    """Cross-entropy in nats; for a user module the monitored metric."""
    correct: Sequence[float]
    """1 for a correct class, else 0; NaN if unknown."""

    def write(self, path: Path) -> None:
        """Write the results to an npz file atomically."""
        with atomic_write(path) as temporary, temporary.open("wb") as stream:
            loss, correct = (np.asarray(values, np.float32) for values in (self.loss, self.correct))
            np.savez_compressed(stream, loss=loss, correct=correct)

    @classmethod
    def read(cls, path: Path) -> ExampleResults | None:
        """Return the results in a file; None if it is missing or invalid."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
                loss, correct = (array("d", held[name].astype(float).ravel().tolist()) for name in ("loss", "correct"))
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return cls(loss, correct) if len(loss) == len(correct) else None


class TestResult(NamedTuple):
    """Scores of a model on the test set."""

    loss: float
    """The loss, or the monitored metric."""
    acc: float
    """Accuracy; NaN if there is none."""
    examples: ExampleResults | None
    """None if the module cannot be evaluated on parts of the test set."""
    logged: Mapping[str, float] = MappingProxyType({})
    """All metrics logged on the test set, by name."""


def accuracy_scores(module: Any, source: Source) -> TestResult:
    """Return the test scores of a module with `example_scores`, with results by example."""
    batches = source.test_dataloader()
    module = module.to(next(iter(batches))[0].device)
    losses, correct = array("d"), array("d")
    with torch.no_grad():
        for batch in batches:
            loss, is_right = module.example_scores(batch)
            losses.extend(loss.double().tolist())
            correct.extend(is_right.double().tolist())
    return TestResult(sum(losses) / len(losses), sum(correct) / len(correct), ExampleResults(losses, correct))


@seeded(0)  # same random numbers for all models
def monitored_scores(
    name: str, module: Any, source: Source, settings: TrainerSettings, *, by_group: bool = True, **limits: Any
) -> TestResult:
    """Return the monitored metric of a model on the test set, and its test accuracy, NaN if there is none.

    All test loaders are evaluated. If the monitored name has no loader suffix, the first loader counts.
    """
    twin = _twin(module) if by_group else None
    for step, name_there in (("test", on_test(settings.monitor)), ("val", settings.monitor.name)):
        if step == "test" and not defines(module, "test_step"):
            continue  # validation_step can evaluate any examples
        measure = partial(measured, module, source, settings, step, **limits)
        scores = measure(source.test_dataloader())
        if wanted := by_loader(name_there, scores):
            parts = _by_group(twin, measure, source.test_dataloader(), step, wanted) if by_group else None
            acc = scores.get(by_loader("test_acc", scores) or by_loader("val_acc", scores), math.nan)
            by_example = ExampleResults(parts, [math.nan] * len(parts)) if parts else None
            return TestResult(scores[wanted], acc, by_example, scores)
    raise InputError(
        f"model={name} must log {on_test(settings.monitor)} for the test set, and logs {', '.join(scores)}"
    )


def by_loader(wanted: str, scores: Mapping[str, float]) -> str:
    """Return the logged name of a metric: the name itself, or with the suffix of the only or first test loader."""
    bare = wanted.removesuffix(loader_of(wanted))
    return next((name for name in (wanted, bare, f"{bare}/dataloader_idx_0") if name in scores), "")


def check_test(name: str, module: Any, source: Source, settings: TrainerSettings) -> None:
    """Run an untrained module on the first test batch, so that errors occur before the search."""
    limits = {"limit_test_batches": 1, "limit_val_batches": 1}
    try:
        monitored_scores(name, module, source, settings, by_group=False, **limits)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"model={name} must be able to evaluate the test set, but failed on its first batch "
            f"({described(error)}): correct it, or remove test_dataloader from the data"
        ) from error


def validation_scores(module: Any, source: Source, settings: TrainerSettings) -> list[float] | None:
    """Return the monitored metric of a model on each group of validation examples; None if unknown."""
    loader, name = source.val_dataloader(), settings.monitor.name
    return _by_group(_twin(module), partial(measured, module, source, settings, "val"), loader, "val", name)


def _twin(module: Any) -> Any:
    """Return a copy of a module, whose steps may change it; None if it cannot be copied."""
    try:
        return copy.deepcopy(module)
    except Exception:  # user modules may raise anything
        return None


def _by_group(
    twin: Any, measure: Callable[[Any], Mapping[str, float]], loader: Any, step: str, name: str
) -> list[float] | None:
    """Return a metric on each group of a loader's examples, or None if impossible.

    The module's step runs without a Trainer if that gives the same value on the whole set. A metric that is not a mean
    over examples is evaluated on all groups except one; jackknife pseudo-values (Tukey 1958) represent the group.
    """
    try:
        groups = example_groups(loader)
        if groups is None:
            return None
        everything, whole = range(len(groups)), measure(loader)[name]
        if not math.isfinite(whole):
            return None
        alone = _of_step(twin, loader, step).get(name, math.nan)
        of = (lambda part: _of_step(twin, part, step)) if math.isclose(alone, whole, rel_tol=SAME) else measure
        found = [of(groups.only(group))[name] for group in everything]
        if not math.isclose(np.average(found, weights=groups.sizes), whole, rel_tol=SAME, abs_tol=SAME**2):
            rest = [of(groups.without(group))[name] for group in everything]
            found = [len(groups) * whole - (len(groups) - 1) * each for each in rest]
    except Exception:  # a user module may not support every part of a set
        return None
    return found if all(map(math.isfinite, found)) else None


def _of_step(twin: Any, loader: Any, step: str) -> dict[str, float]:
    """Return the values logged by the module's step without a Trainer; empty if it needs one."""
    try:
        return evaluate(twin, loader, "test_step" if step == "test" else "validation_step")
    except Exception:  # the step may use its Trainer, or log objects
        return {}


def measured(
    module: Any, source: Source, settings: TrainerSettings, step: str, loader: Any, *, epoch: int = 0, **limits: Any
) -> dict[str, float]:
    """Return the values logged by a trained module in an evaluation pass, by name.

    Args:
        module: The module; it keeps its weights even if `setup` rebuilds layers.
    """
    with quiet_lightning():
        trainer = make_trainer(module, settings, [_Weights(module)], **limits)
        trainer.fit_loop.epoch_progress.current.completed = epoch
        (trainer.test if step == "test" else trainer.validate)(module, verbose=False, **source.for_test(step, loader))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


class _Weights(Callback):
    """Restores a module's weights after hooks have rebuilt its layers."""

    def __init__(self, module: Any) -> None:
        self._weights = copy.deepcopy(module.state_dict())

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.load_state_dict(self._weights)

    on_validation_start = on_test_start
