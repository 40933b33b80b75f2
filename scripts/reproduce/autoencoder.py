"""The autoencoder of Srivastava et al. (2014, section 7.2), as a module and data of the user's own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dropsearch.datasets.catalogue import describe
from dropsearch.datasets.raw_data import read_raw_data

PIXELS = 784


class Autoencoder(LightningModule):
    """One hidden layer of rectified linear units, with dropout behind them, between pixels and pixels."""

    def __init__(self, lr: float, weight_decay: float, units: int = 256) -> None:
        super().__init__()
        self.lr, self.weight_decay = lr, weight_decay
        self.encoder, self.dropout, self.decoder = nn.Linear(PIXELS, units), nn.Dropout(), nn.Linear(units, PIXELS)

    def hidden(self, x: Tensor) -> Tensor:
        """Return the activations of the hidden units, [batch, units]."""
        return F.relu(self.encoder(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of all pixels, [batch, 784]."""
        return self.decoder(self.dropout(self.hidden(x)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the cross-entropy of a pixel, in nats."""
        (x,) = batch
        return F.binary_cross_entropy_with_logits(self(x), x)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the same on the validation set."""
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> Any:
        """Return an optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)


class Pixels(LightningDataModule):
    """MNIST without labels, its pixels in [0, 1]."""

    def __init__(self, root: str = "data", train: int = 10_000, val: int = 2_000) -> None:
        super().__init__()
        pool = read_raw_data(describe("mnist"), root)
        images = torch.from_numpy(pool.x).flatten(1)
        self.train, self.val = images[:train].float() / 255, images[train : train + val].float() / 255
        self.test = images[-pool.published_test :].float() / 255

    def train_dataloader(self) -> Any:
        """Return the training images, shuffled."""
        return DataLoader(TensorDataset(self.train), batch_size=128, shuffle=True, drop_last=True)

    def val_dataloader(self) -> Any:
        """Return other images of the training set."""
        return DataLoader(TensorDataset(self.val), batch_size=1000)
