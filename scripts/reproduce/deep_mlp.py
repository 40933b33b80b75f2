"""The network and data of "Dropout Universality" (ICML 2026, arXiv 2605.21648), as a user's own module and data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dropsearch.datasets.catalogue import describe
from dropsearch.datasets.raw_data import read_raw_data

PIXELS, CLASSES = 3072, 10
WEIGHT_VARIANCE, BIAS_VARIANCE = 1.98, 0.02
LEAST_LR = 1e-7
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of CIFAR-10's channels, as published."""


class DeepMLP(LightningModule):
    """Layers of rectified linear units, with dropout behind each: ``layers.dropout1`` and so on."""

    def __init__(self, lr: float = 1e-4, weight_decay: float = 1e-7, width: int = 256, depth: int = 6) -> None:
        super().__init__()
        self.lr, self.weight_decay = lr, weight_decay
        self.layers = nn.Sequential()
        for number, inputs in enumerate([PIXELS] + [width] * (depth - 1), start=1):
            self.layers.add_module(f"linear{number}", linear(inputs, width))
            self.layers.add_module(f"relu{number}", nn.ReLU())
            self.layers.add_module(f"dropout{number}", nn.Dropout())
        self.layers.add_module("output", linear(width, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of all classes, [batch, 10]."""
        return self.layers(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the cross-entropy, in nats."""
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log loss and accuracy on the validation images, and on the test images where the batch has some."""
        self._log_scores("val", *batch[:2])
        if len(batch) == 4:
            self._log_scores("test", *batch[2:])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log loss and accuracy on the test images."""
        self._log_scores("test", *batch)

    def _log_scores(self, part: str, x: Tensor, y: Tensor) -> None:
        logits = self(x)
        right = (logits.argmax(-1) == y).float().mean()
        self.log_dict({f"{part}_loss": F.cross_entropy(logits, y), f"{part}_acc": right}, batch_size=len(y))

    def configure_optimizers(self) -> Any:
        """Return AdamW, whose learning rate falls on a cosine from epoch to epoch."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        epochs = self.trainer.max_epochs or 1
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=LEAST_LR)]


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a layer with the published initial weights and biases."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=math.sqrt(WEIGHT_VARIANCE / inputs))
    nn.init.normal_(layer.bias, std=math.sqrt(BIAS_VARIANCE))
    return layer


class Images(LightningDataModule):
    """CIFAR-10: the published 5,000 training and 5,000 test images, and as many others of the training set to validate.

    Args:
        root: Folder of fetched data sets.
        size: Number of images of each part; the published number is 5,000.
        watch_test: Whether validation measures the test images too, after each epoch, as the publication does.
    """

    def __init__(self, root: str = "data", size: int = 5000, watch_test: bool = True) -> None:
        super().__init__()
        self.watch_test = watch_test
        raw = read_raw_data(describe("cifar10"), root)
        pool = len(raw.labels) - raw.published_test
        random = np.random.RandomState(0)  # draws what was drawn for the publication
        train, test = (random.choice(count, 5000, replace=False)[:size] for count in (pool, raw.published_test))
        others = np.setdiff1d(np.arange(pool), train)
        self.train, self.val, self.test = (
            (standardized(raw.x[places]), torch.from_numpy(raw.labels[places]))
            for places in (train, random.permutation(others)[:size], pool + test)
        )

    def train_dataloader(self) -> Any:
        """Return the training images, shuffled."""
        return DataLoader(TensorDataset(*self.train), batch_size=100, shuffle=True, drop_last=True)

    def val_dataloader(self) -> Any:
        """Return the validation images, beside the test images if these are watched."""
        return DataLoader(TensorDataset(*self.val, *(self.test if self.watch_test else ())), batch_size=1000)

    def test_dataloader(self) -> Any:
        """Return the test images."""
        return DataLoader(TensorDataset(*self.test), batch_size=1000)


def standardized(images: Any) -> Tensor:
    """Return images [images, 3, 32, 32], of bytes, as [images, 3072] of float32."""
    mean, deviation = (torch.tensor(numbers).view(3, 1, 1) for numbers in (MEAN, DEVIATION))
    return ((torch.from_numpy(images).float() / 255 - mean) / deviation).flatten(1)
