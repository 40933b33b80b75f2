"""chemprop: message passing on molecules; batches are named tuples with a graph, the loss is a metric object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chemprop import data as chem_data
from chemprop import models, nn
from lightning import LightningDataModule
from rdkit import Chem
from rdkit.Chem.Descriptors import MolLogP

from tests.ecosystem.searching import assert_alike

PARTS = ["C", "CC", "CO", "CN", "C(=O)", "C1CC1", "C(F)", "C(Cl)", "CS", "C=C"]
SMILES = [f"{first}{second}{third}" for first in PARTS for second in PARTS for third in ("O", "N")]


class Molecules(LightningDataModule):
    def setup(self, stage: str) -> None:
        molecules = [each for each in map(Chem.MolFromSmiles, SMILES) if each is not None]
        points = [chem_data.MoleculeDatapoint(each, [MolLogP(each)]) for each in molecules]
        self.train, self.val = chem_data.MoleculeDataset(points[0::2]), chem_data.MoleculeDataset(points[1::2])

    def train_dataloader(self) -> Any:
        return chem_data.build_dataloader(self.train, batch_size=16)

    def val_dataloader(self) -> Any:
        return chem_data.build_dataloader(self.val, batch_size=16, shuffle=False)


def mpnn(max_lr: float = 1e-3, batch_norm: bool = False) -> models.MPNN:
    return models.MPNN(
        nn.BondMessagePassing(d_h=16, depth=3, dropout=0.1),
        nn.MeanAggregation(),
        nn.RegressionFFN(input_dim=16, hidden_dim=16, dropout=0.1),
        batch_norm=batch_norm,
        max_lr=max_lr,
    )


SITES = ["message_passing.dropout", "predictor.ffn.1.1"]
"""One `nn.Dropout` for all steps of message passing, and one in the predictor."""


def test_trains_vectorized_as_alone_though_graphs_differ_in_size(tmp_path: Path) -> None:
    # In double precision Lightning itself leaves the graphs in float32, and fails.
    assert_alike(mpnn, Molecules, tmp_path, SITES, precision="32-true")
