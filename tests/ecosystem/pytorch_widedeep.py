"""pytorch-widedeep: networks for tables, in a plain module; batches are dicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningDataModule, LightningModule
from pytorch_widedeep.models import FTTransformer, TabMlp, TabResnet, WideDeep
from sklearn.datasets import load_diabetes
from torch import Tensor
from torch.utils.data import DataLoader

from tests.ecosystem.searching import assert_alike

COLUMNS = [f"c{index}" for index in range(10)]


class Diabetes(LightningDataModule):
    def setup(self, stage: str) -> None:
        x, y = (torch.tensor(part, dtype=torch.float32) for part in load_diabetes(return_X_y=True))
        x = torch.cat([(x[:, :2] > 0) + 1.0, x[:, 2:] * 20], 1)
        self.rows = [
            ({"deeptabular": one}, other) for one, other in zip(x, (y[:, None] - y.mean()) / y.std(), strict=True)
        ]

    def train_dataloader(self) -> Any:
        return DataLoader(self.rows[:192], batch_size=32, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.rows[192:], batch_size=64)


class Net(LightningModule):
    def __init__(self, kind: Any, lr: float, **given: Any) -> None:
        super().__init__()
        self.lr = lr
        sizes = (2,) if kind is FTTransformer else (2, 4)
        inputs = {"column_idx": {name: index for index, name in enumerate(COLUMNS)}, "continuous_cols": COLUMNS[2:]}
        self.net = WideDeep(
            deeptabular=kind(cat_embed_input=[(name, *sizes) for name in COLUMNS[:2]], **inputs, **given)
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.mse_loss(self.net(batch[0]), batch[1])
        self.log("train_loss" if self.training else "val_loss", loss)
        return loss

    validation_step = training_step

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def mlp(lr: float = 1e-3) -> Net:
    return Net(TabMlp, lr, mlp_hidden_dims=[16, 8], mlp_dropout=0.1, cat_embed_dropout=0.1)


def resnet(lr: float = 1e-3) -> Net:
    return Net(TabResnet, lr, blocks_dims=[16, 8, 8], blocks_dropout=0.1, cat_embed_dropout=0.1)


def transformer(lr: float = 1e-3) -> Net:
    return Net(FTTransformer, lr, input_dim=8, n_heads=2, n_blocks=1, attn_dropout=0.1, ff_dropout=0.1)


PART = "net.deeptabular.0"
SITES = {
    mlp: [f"{PART}.cat_embed.embedding_dropout", *(f"{PART}.encoder.mlp.dense_layer_{layer}.2" for layer in (0, 1))],
    resnet: [
        f"{PART}.cat_embed.embedding_dropout", *(f"{PART}.encoder.dense_resnet.block_{block}.dp" for block in (0, 1)),
    ],
    transformer: [
        f"{PART}.cat_embed.dropout", f"{PART}.cont_embed.dropout",
        *(f"{PART}.encoder.fttransformer_block0.{part}.dropout" for part in ("attn", "ff", "ff_normadd")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("make", [mlp, resnet, transformer], ids=lambda make: make.__name__)
def test_trains_vectorized_as_alone(make: Any, tmp_path: Path) -> None:
    assert_alike(make, Diabetes, tmp_path, SITES[make])
