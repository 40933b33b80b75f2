"""Each argument and callback of the Trainer does in a trial what it does under plain Lightning."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.callbacks.weight_averaging import EMAWeightAveraging
from torch import nn

from tests.parity.census import Case, Cell, compare
from tests.parity.conftest import source
from tests.training.conftest import Source


class Freeze(BaseFinetuning):
    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.first)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.first, optimizer, lr=0.01)


class Trained(Cell):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], self.lr)


class Backboned(Trained):
    """Freezes its backbone at first."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.backbone = nn.Sequential(self.first)


class Halving(Callback):
    """Changes the learning rate in the middle of an epoch."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] *= 0.9


class Stopping(Callback):
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = trainer.global_step >= 5


class Logged(Cell):
    """Logs for both steps in every way."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return loss


STOPPED = partial(EarlyStopping, "val_loss", patience=0, min_delta=9.0)
CASES: dict[str, dict[str, Any]] = {
    "accumulated": {"accumulate_grad_batches": 3},
    "clipped by norm": {"gradient_clip_val": 0.01},
    "clipped by value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    "limited to a number": {"limit_train_batches": 3, "limit_val_batches": 1},
    "limited to a share": {"limit_train_batches": 0.5},
    "validated twice an epoch": {"val_check_interval": 0.5},
    "validated every three batches": {"val_check_interval": 3, "check_val_every_n_epoch": None},
    "validated every other epoch": {"check_val_every_n_epoch": 2},
    "overfitting": {"overfit_batches": 2},
    "deterministic": {"deterministic": True},
    "at most some steps": {"max_steps": 7},
    "at least some epochs": {"min_epochs": 2, "callbacks": [STOPPED]},
    "stopped early": {"callbacks": [STOPPED]},
    "stopped in an epoch": {"callbacks": [Stopping]},
    "averaged": {"callbacks": [partial(EMAWeightAveraging, decay=0.7)]},
    "averaged in the end": {"callbacks": [partial(StochasticWeightAveraging, 0.01, swa_epoch_start=1)]},
    "accumulated by a schedule": {"callbacks": [partial(GradientAccumulationScheduler, {0: 1, 1: 2})]},
    "pruned": {"callbacks": [partial(ModelPruning, "l1_unstructured", amount=0.3)]},
    "learning rate monitored": {"callbacks": [partial(LearningRateMonitor, "step")], "logger": None},
    "timed": {"callbacks": [partial(Timer, duration={"hours": 1})]},
    "halved": {"callbacks": [Halving]},
    "anomalies detected": {"detect_anomaly": True},
    "without inference mode": {"inference_mode": False},
    "sanity checked": {"num_sanity_val_steps": 2},
    "profiled": {"profiler": "simple"},
    "reloaded": {"reload_dataloaders_every_n_epochs": 1},
}
BY_MODULE: dict[str, tuple[Any, dict[str, Any]]] = {
    "unfrozen": (Trained, {"callbacks": [Freeze]}),
    "backbone unfrozen": (Backboned, {"callbacks": [partial(BackboneFinetuning, 1)]}),
    "stopped by a training metric": (
        Logged, {"callbacks": [partial(EarlyStopping, "train_loss_epoch", patience=0, min_delta=9.0)]},
    ),
    "logged at each step": (Logged, {"log_every_n_steps": 1}),
}  # fmt: skip


def made(given: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of a Trainer, with new callbacks."""
    return {**given, **({"callbacks": [make() for make in given["callbacks"]]} if "callbacks" in given else {})}


@pytest.mark.parametrize("name", CASES)
def test_an_argument(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compare(Case(trainer=lambda: made(CASES[name])))


@pytest.mark.parametrize("name", BY_MODULE)
def test_an_argument_for_a_module(name: str) -> None:
    module, given = BY_MODULE[name]
    compare(Case(module, lambda: made(given)))


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true", "bf16-true"])
def test_a_precision(precision: str) -> None:
    torch.set_default_dtype(torch.float32)
    both = source()
    data = Source(*(tuple(tensor.float() for tensor in part) for part in (both.train, both.val)))
    compare(Case(precision=precision, data=lambda: data, exact=1e-6, rates=(0.0,)))


def test_a_checkpoint_callback(tmp_path: Path) -> None:
    compare(
        Case(
            trainer=lambda: {"callbacks": [ModelCheckpoint(tmp_path, monitor="val_loss")], "enable_checkpointing": True}
        )
    )
    assert list(tmp_path.glob("*.ckpt"))
