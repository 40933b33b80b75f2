"""A user module and its data, written without dropsearch in mind; its shape is that of digits-mlp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningDataModule, LightningModule
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class LitMLP(LightningModule):
    """64-128-128-10 with BatchNorm, functional dropout at the same three places, and logging of its own."""

    def __init__(self, lr: float = 1e-3, weight_decay: float = 1e-2, drops: Sequence[float] = (0.1, 0.5, 0.5)) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.drops = lr, weight_decay, tuple(drops)
        self.fc1, self.fc2, self.out = nn.Linear(64, 128), nn.Linear(128, 128), nn.Linear(128, 10)
        self.bn1, self.bn2 = nn.BatchNorm1d(128), nn.BatchNorm1d(128)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[batch, 10]` for images `[batch, 1, 8, 8]`."""
        x = F.dropout(x.flatten(1), self.drops[0], self.training)
        x = F.dropout(F.relu(self.bn1(self.fc1(x))), self.drops[1], self.training)
        x = F.dropout(F.relu(self.bn2(self.fc2(x))), self.drops[2], self.training)
        return self.out(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        x, y = batch
        logits = self(x)
        loss = F.cross_entropy(logits, y)
        self.log("train_loss", loss)
        self.log("train_acc", (logits.argmax(1) == y).float().mean(), prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log loss and accuracy."""
        x, y = batch
        logits = self(x)
        self.log("val_loss", F.cross_entropy(logits, y))
        self.log("val_acc", (logits.argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return an optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)


class Digits(LightningDataModule):
    """The digits of scikit-learn, as many in each part as the catalogue's split has."""

    def setup(self, stage: str | None = None) -> None:
        """Split the set at random, always in the same way."""
        seeded = torch.Generator().manual_seed(0)
        x, y = load_digits(return_X_y=True)
        examples = TensorDataset(torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(y))
        self.train, self.val, _ = random_split(examples, [1078, 359, 360], seeded)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches."""
        return DataLoader(self.train, batch_size=64, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches."""
        return DataLoader(self.val, batch_size=359)
