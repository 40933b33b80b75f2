"""A user's module and data, trained vectorized and by plain Lightning: the laws that both must keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer

from dropsearch.core.global_state import seeded
from dropsearch.core.records import EpochMetrics, Monitor, TrialResult, TrialSpec
from dropsearch.datasets.user_data import UserData
from dropsearch.training.planning.compatibility import incompatibilities
from dropsearch.training.planning.equivalence import check_equivalence
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.trainers import quiet_lightning
from dropsearch.training.vectorized.engine import VectorizedEngine
from tests.training.conftest import Queue

Make = Callable[..., LightningModule]


def trials(count: int, sites: Sequence[str] = ("model", "drop")) -> list[TrialSpec]:
    """Return trials that differ in their rates, learning rates and seeds."""
    return [
        TrialSpec("dropout", n, 50 + n, dict.fromkeys(sites, 0.15 + 0.2 * n), lr=2e-3 * (n + 1), weight_decay=0.0)
        for n in range(count)
    ]


class Case:
    """A module, its data, and what all trials share; everything in float64.

    Args:
        make: The module's class; it takes `lr`, unless `takes_lr` says otherwise.
        data: The user's data module.
        monitor: What is monitored.
        epochs: Of each trial.
        trainer: Further arguments of the Trainer.
    """

    def __init__(
        self, make: Make, data: Any, monitor: str = "val_loss", epochs: int = 2, mode: str = "min", **trainer: Any
    ) -> None:
        self.make, self.source = make, UserData(data, "data", is_double=True)
        self.settings = TrainerSettings(
            epochs, "cpu", "64-true", monitor=Monitor(monitor, mode), trainer=lambda: trainer
        )

    def make_module(self, spec: TrialSpec) -> LightningModule:
        """Return a trial's module."""
        with seeded(spec.seed):
            return self.make(lr=spec.lr).double()

    def reason(self, sites: Sequence[str] = ("model", "drop")) -> str:
        """Return why the module trains sequentially, as the plan does; empty if it trains vectorized."""
        rows = self.source.in_rows()
        if rows is None:
            return self.source.incompatibility
        one, other = trials(2, sites)
        with quiet_lightning():
            trainer = Trainer(max_epochs=2, accelerator="cpu", barebones=True)
        found = next(incompatibilities(self.make_module, rows, one, self.settings.monitor, trainer), "")
        return found or check_equivalence(self.make_module, rows, self.settings, (one, other))

    def sequential(self, specs: Sequence[TrialSpec], folder: Path, **feed: Any) -> dict[int, TrialResult]:
        """Train trials one after the other."""
        queue = Queue(list(specs), **feed)
        SequentialEngine(self.make_module, self.source, self.settings, lambda s: folder / f"s{s.number}").run(queue)
        return queue.results

    def vectorized(
        self, specs: Sequence[TrialSpec], folder: Path, width: int = 3, **feed: Any
    ) -> dict[int, TrialResult]:
        """Train trials as rows of stacked tensors."""
        rows, queue = self.source.in_rows(), Queue(list(specs), **feed)
        assert rows is not None, self.source.incompatibility
        engine = VectorizedEngine(self.make_module, rows, self.settings, width, lambda s: folder / f"v{s.number}")
        engine.run(queue)
        assert not engine.failure, engine.failure
        return queue.results


def assert_alike(got: dict[int, TrialResult], expected: dict[int, TrialResult], tolerance: float = 1e-9) -> None:
    """Compare states, curves and the weights of the best epoch."""
    assert set(got) == set(expected)
    for number, theirs in expected.items():
        ours = got[number]
        assert (ours.state, len(ours.curve)) == (theirs.state, len(theirs.curve)), (ours.reason, theirs.reason)
        for mine, point in zip(ours.curve, theirs.curve, strict=True):
            here, there = values(mine), values(point)
            assert here == pytest.approx(there, rel=1e-7, abs=1e-8, nan_ok=True), (number, here, there)
        assert ours.lr_used == pytest.approx(theirs.lr_used, rel=1e-12)
        if theirs.checkpoint:
            got_weights = weights(ours)
            for name, value in weights(theirs).items():
                assert torch.allclose(got_weights[name].double(), value.double(), rtol=0, atol=tolerance), name


def values(point: EpochMetrics) -> dict[str, float]:
    """Return the numbers of an epoch by name."""
    names = ("objective", "train_loss", "train_loss_as_trained", "val_loss", "train_acc", "val_acc")
    return {**{name: getattr(point, name) for name in names}, **point.logged}


def weights(result: TrialResult) -> dict[str, torch.Tensor]:
    """Return the weights that a trial saved."""
    return torch.load(result.checkpoint, weights_only=True)["state_dict"]


def assert_law_2(case: Case, folder: Path, sites: Sequence[str] = ("model", "drop")) -> None:
    """Trials are the same alone, in either of two rows, beside any neighbors, and where a row is refilled."""
    reason = case.reason(sites)
    assert reason == "", reason
    specs = trials(3, sites)

    def prune(spec: TrialSpec, metrics: EpochMetrics) -> bool:
        return spec.number == 2 and metrics.epoch == 0

    rows = case.vectorized(specs[::-1], folder, width=2, prune=prune)
    assert rows.pop(2).state == "PRUNED", "its row is not refilled beside another"
    assert {result.state for result in rows.values()} == {"COMPLETE"}, [result.reason for result in rows.values()]
    assert_alike(rows, case.sequential(specs[:2], folder))
