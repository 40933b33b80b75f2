"""Retrainings with training and validation sets of their own: the same numbers in rows as one at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning import LightningModule

from dropsearch.core.global_state import seeded
from dropsearch.core.records import TrialSpec
from dropsearch.datasets.data_module import TensorDataModule
from dropsearch.models import MLP, Classifier
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.vectorized.engine import VectorizedEngine
from tests.training.conftest import Queue
from tests.user_modules import metrics

RATES = {"net.hidden1.dropout": 0.3}


@pytest.fixture(scope="module")
def source() -> TensorDataModule:
    """Data in float64, so that rounding is no difference."""
    source = TensorDataModule("digits", train_size=96, batch_size=32, val_fraction=0.4)
    source.setup()
    for name in ("_examples", "_test"):
        x, y = getattr(source, name)
        setattr(source, name, (x.double(), y))
    return source


def specs(count: int, rates: dict[str, float]) -> list[TrialSpec]:
    return [
        TrialSpec(
            "dropout", n, 50 + n // 2, rates, lr=2e-3 * (n + 1), weight_decay=0.0, phase="confirm", configuration=0
        )
        for n in range(count)
    ]


def classifier(spec: TrialSpec) -> LightningModule:
    with seeded(spec.seed):
        net = MLP((1, 8, 8), classes=10, hidden=[12], norm="batch", dropout={"hidden1.dropout": 0.3})
        return Classifier(net, lr=spec.lr).double()


def template(spec: TrialSpec) -> LightningModule:
    """A user module that keeps metric objects, so that hooks run row by row."""
    with seeded(spec.seed):
        return metrics.Outputs(lr=spec.lr).double()


@pytest.mark.parametrize("device_step", [False, True])
@pytest.mark.parametrize(("make", "rates"), [(classifier, RATES), (template, {"drop": 0.3})])
def test_rows_equal_sequential_training(
    source: TensorDataModule,
    make: Callable[[TrialSpec], LightningModule],
    rates: dict[str, float],
    device_step: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dropsearch.training.vectorized.trial_stack.uses_cuda_graphs", lambda _: device_step)
    settings = TrainerSettings(3, "cpu", "64-true")
    trials, alone, together = specs(5, rates), Queue(specs(5, rates)), Queue(specs(5, rates))
    SequentialEngine(make, source, settings).run(alone)
    VectorizedEngine(make, source, settings, width=2).run(together)  # rows are refilled, then narrowed
    for spec in trials:
        expected, found = alone.results[spec.number], together.results[spec.number]
        assert (expected.state, found.state) == ("COMPLETE", "COMPLETE"), (expected.reason, found.reason)
        for one, other in zip(found.curve, expected.curve, strict=True):
            assert dataclasses.astuple(one)[1:4] == pytest.approx(dataclasses.astuple(other)[1:4], abs=1e-9)


@pytest.mark.parametrize("width", [1, 3])
def test_losses_are_those_of_the_split_of_the_seed(source: TensorDataModule, tmp_path: Path, width: int) -> None:
    feed = Queue(specs(3, RATES))
    settings = TrainerSettings(1, "cpu", "64-true")
    VectorizedEngine(classifier, source, settings, width, lambda spec: tmp_path / f"{spec.number}.ckpt").run(feed)
    for result in feed.results.values():
        module = classifier(result.spec)
        module.load_state_dict(torch.load(result.checkpoint, weights_only=True)["state_dict"])
        drawn = source.for_trial(result.spec)
        for indices, loss in ((drawn.val, result.curve[0].val_loss), (drawn.train_part, result.curve[0].train_loss)):
            x, y = (part[indices] for part in drawn.examples)
            with torch.no_grad():
                by_hand = torch.nn.functional.cross_entropy(module.eval()(x), y)
            assert loss == pytest.approx(by_hand.item(), abs=1e-6)  # checkpoints keep the dtype of the weights
