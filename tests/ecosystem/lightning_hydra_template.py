"""A module in the style of lightning-hydra-template: torchmetrics objects, an optimizer and a schedule as callables."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, LightningModule
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification.accuracy import Accuracy

from tests.ecosystem.searching import assert_alike, shares_of_zeros


class SimpleDenseNet(nn.Module):
    def __init__(self, width: int = 16, drop: float = 0.2) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(drop),
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(drop), nn.Linear(width, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class DigitsLitModule(LightningModule):
    def __init__(self, net: nn.Module, optimizer: Callable[..., Any], scheduler: Callable[..., Any] | None) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["net"])
        self.net = net
        self.criterion = nn.CrossEntropyLoss()
        self.train_acc = Accuracy(task="multiclass", num_classes=10)
        self.val_acc = Accuracy(task="multiclass", num_classes=10)
        self.test_acc = Accuracy(task="multiclass", num_classes=10)
        self.train_loss, self.val_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()
        self.val_acc_best = MaxMetric()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def on_train_start(self) -> None:
        self.val_loss.reset()
        self.val_acc.reset()
        self.val_acc_best.reset()

    def model_step(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        x, y = batch
        logits = self.forward(x)
        return self.criterion(logits, y), torch.argmax(logits, dim=1), y

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss, preds, targets = self.model_step(batch)
        self.train_loss(loss)
        self.train_acc(preds, targets)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        pass

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss, preds, targets = self.model_step(batch)
        self.val_loss(loss)
        self.val_acc(preds, targets)
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        acc = self.val_acc.compute()
        self.val_acc_best(acc)
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        loss, preds, targets = self.model_step(batch)
        self.test_loss(loss)
        self.test_acc(preds, targets)
        self.log("test/loss", self.test_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("test/acc", self.test_acc, on_step=False, on_epoch=True, prog_bar=True)

    def setup(self, stage: str) -> None:
        self.stage = stage

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.hparams.optimizer(params=self.trainer.model.parameters())
        if self.hparams.scheduler is None:
            return {"optimizer": optimizer}
        scheduler = self.hparams.scheduler(optimizer=optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss", "interval": "epoch", "frequency": 1},
        }


class Augmented(Dataset):
    """Digits with noise that is drawn anew whenever an example is read."""

    def __init__(self, examples: Dataset) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        image, label = self.examples[index]
        return image + 0.1 * torch.randn_like(image), label


class DigitsDataModule(LightningDataModule):
    def __init__(self, augmented: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)

    def setup(self, stage: str | None = None) -> None:
        images, labels = load_digits(return_X_y=True)
        whole = TensorDataset(torch.tensor(images[:400] / 16, dtype=torch.float32), torch.tensor(labels[:400]))
        parts = random_split(whole, [200, 100, 100], torch.Generator().manual_seed(42))
        self.train, self.val, self.test = parts
        if self.hparams.augmented:
            self.train = Augmented(self.train)  # type: ignore[assignment]

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=32, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, batch_size=50)

    def test_dataloader(self) -> Any:
        return DataLoader(self.test, batch_size=50)


def template(lr: float = 1e-3) -> DigitsLitModule:
    scheduler = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, mode="min", factor=0.1, patience=1)
    return DigitsLitModule(SimpleDenseNet(), partial(torch.optim.Adam, lr=lr, weight_decay=0.0), scheduler)


MONITOR = "val/loss"
SITES = ["net.model.4", "net.model.8"]


def test_trains_vectorized_as_alone(tmp_path: Path) -> None:
    assert_alike(template, DigitsDataModule, tmp_path, SITES, MONITOR)


def test_trains_vectorized_with_augmentation_in_the_data_set(tmp_path: Path) -> None:
    assert_alike(template, partial(DigitsDataModule, augmented=True), tmp_path, SITES, MONITOR)


def test_rates() -> None:
    module = template().train()
    for share in shares_of_zeros(module, lambda: module(torch.rand(64, 64)), SITES, 0.3).values():
        assert share == pytest.approx(0.3, abs=0.02)
