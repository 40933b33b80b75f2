"""Searching the dropout rates of a module of your own: run me, ``python examples/user_module.py``.

The module and its data are ordinary Lightning; nothing in them knows dropsearch. From this folder the command line
does the same::

    python -m dropsearch model._target_=user_module.LitNet data._target_=user_module.Digits trainer.max_epochs=10
"""

# %% An ordinary LightningModule: one dropout is a layer, the other a bare call in `forward`.

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningDataModule, LightningModule
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class LitNet(LightningModule):
    """A small convolutional network with BatchNorm."""

    def __init__(self, width: int = 16, lr: float = 1e-3, dropout: float = 0.5) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.hidden = nn.Linear(width * 16, 32)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[batch, 10]` for images `[batch, 1, 8, 8]`."""
        x = F.dropout(self.features(x).flatten(1), 0.2, self.training)
        return self.head(self.drop(torch.relu(self.hidden(x))))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log loss and accuracy."""
        x, y = batch
        logits = self(x)
        self.log("val_loss", F.cross_entropy(logits, y))
        self.log("val_acc", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> Any:
        """Return an optimizer; its weight decay is the search's to set."""
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"])


# %% An ordinary LightningDataModule.


class Digits(LightningDataModule):
    """The digits of scikit-learn."""

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str | None = None) -> None:
        """Split the set at random."""
        x, y = load_digits(return_X_y=True)
        examples = TensorDataset(torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(y))
        self.train, self.val, self.test = random_split(examples, [0.6, 0.2, 0.2])

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches."""
        return DataLoader(self.val, batch_size=512)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test batches."""
        return DataLoader(self.test, batch_size=512)


# %% The search, and what is done with its answer.

if __name__ == "__main__":
    import dropsearch

    result = dropsearch.search(
        lambda lr: LitNet(width=16, lr=lr),
        Digits(),
        name="LitNet",
        n_trials=20,
        max_epochs=8,
        confirm_seeds=3,
    )
    print(result)
    print("rates to train with:", dict(result.best_rates))
    print(result.trials_dataframe().sort_values("val_loss").head())
