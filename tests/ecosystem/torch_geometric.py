"""PyTorch Geometric: batches are graphs, whose sizes differ between batches, or one graph with masks of its nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, global_mean_pool
from torch_geometric.utils import erdos_renyi_graph

from tests.ecosystem.searching import assert_alike


def graph(index: int) -> Data:
    torch.manual_seed(index)
    label, nodes = index % 2, 5 + index % 4
    # In double precision Lightning itself leaves graphs in their type.
    x = torch.randn(nodes, 4, dtype=torch.float64) + 0.5 * label
    return Data(x=x, edge_index=erdos_renyi_graph(nodes, 0.3 + 0.4 * label), y=torch.tensor([label]))


class Graphs(LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader([graph(index) for index in range(96)], batch_size=16, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader([graph(index) for index in range(96, 144)], batch_size=16)


class OneGraph(LightningDataModule):
    def setup(self, stage: str) -> None:
        torch.manual_seed(0)
        y, place = torch.arange(120) % 3, torch.rand(120)
        x = (torch.randn(120, 8) + F.one_hot(y, 8)).double()
        self.graph = Data(
            x=x, edge_index=erdos_renyi_graph(120, 0.05), y=y, train_mask=place < 0.6, val_mask=place >= 0.6
        )

    def train_dataloader(self) -> Any:
        return DataLoader([self.graph], batch_size=1)

    val_dataloader = train_dataloader


class OfGraphs(LightningModule):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__()
        self.lr = lr
        self.first, self.second, self.last = GCNConv(4, 16), GCNConv(16, 16), nn.Linear(16, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = F.dropout(self.first(batch.x, batch.edge_index).relu(), 0.2, self.training)
        x = global_mean_pool(self.second(x, batch.edge_index).relu(), batch.batch)
        loss = F.cross_entropy(self.last(F.dropout(x, 0.2, self.training)), batch.y)
        self.log("train_loss" if self.training else "val_loss", loss, batch_size=batch.num_graphs)
        return loss

    validation_step = training_step

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class OfNodes(OfGraphs):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.first, self.second, self.last, self.drop = GCNConv(8, 16), GCNConv(16, 3), nn.Identity(), nn.Dropout(0.5)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        mask = batch.train_mask if self.training else batch.val_mask
        x = self.drop(self.first(self.drop(batch.x), batch.edge_index).relu())
        loss = F.cross_entropy(self.second(x, batch.edge_index)[mask], batch.y[mask])
        self.log("train_loss" if self.training else "val_loss", loss, batch_size=int(mask.sum()))
        return loss

    validation_step = training_step


@pytest.mark.parametrize(
    ("make", "data", "sites"), [(OfGraphs, Graphs, ["model", "model#2"]), (OfNodes, OneGraph, ["drop"])]
)
def test_trains_vectorized_as_alone(make: Any, data: Any, sites: list[str], tmp_path: Path) -> None:
    assert_alike(make, data, tmp_path, sites)
