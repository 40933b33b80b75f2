"""A step of many rows with a frozen backbone that is held once, against one that each row holds for itself.

python scripts/bench/frozen_parts.py [--width 16] [--size 512] [--turns 5]

The module has three frozen layers, each with a low-rank adapter and dropout beside it, and a head that trains. Both
sides take the same steps in turns, and the ratio is taken per turn. Also printed: how many numbers the rows hold.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
import torch.nn.functional as F
from given_trials import SpecFeed
from lightning import LightningModule
from torch import Tensor, nn

from dropsearch.core.global_state import seeded
from dropsearch.core.records import TrialSpec
from dropsearch.datasets.loaders import TensorLoader
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.trials import VectorizedTrials

BATCH, EXAMPLES, RANK = 64, 256, 4


class Adapted(nn.Module):
    """A frozen layer and its adapter."""

    def __init__(self, size: int) -> None:
        super().__init__()
        with seeded(0):
            self.base = nn.Linear(size, size).requires_grad_(False)
        self.drop, self.down = nn.Dropout(0.1), nn.Linear(size, RANK, bias=False)
        self.up = nn.Linear(RANK, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.base(x) + self.up(self.down(self.drop(x))))


class Net(LightningModule):
    """Three adapted layers and a head."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Adapted(size) for _ in range(3)))
        self.head = nn.Linear(size, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.head(self.layers(batch[0])), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-3)


class Data:
    """Random examples in memory."""

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(EXAMPLES, size, generator=generator)
        self.tensors = (x, x[:, :10].argmax(1))

    def for_trial(self, spec: TrialSpec) -> Data:
        """Return the same data for all trials."""
        return self

    def train_loader(self, seed: int) -> TensorLoader:
        """Return the training batches."""
        return TensorLoader(self.tensors, BATCH, seed=seed, drop_last=True)

    def val_dataloader(self) -> list[Any]:
        """Return one validation batch."""
        return [tuple(part[:BATCH] for part in self.tensors)]

    train_part_loader = val_dataloader


def side(width: int, size: int, holds_once: bool) -> VectorizedTrials:
    """Return the rows of one side."""

    def make(spec: TrialSpec) -> Net:
        with seeded(spec.seed):
            return Net(size)

    rates = {f"layers.{number}.drop": 0.1 for number in range(3)}
    feed = SpecFeed([TrialSpec("dropout", n, n, rates, lr=1e-3, weight_decay=0.0) for n in range(width)])
    return VectorizedTrials(RowSource(make, Data(size), TrainerSettings(1, "cpu"), feed), width, holds_once=holds_once)


def numbers(trials: VectorizedTrials) -> int:
    """Return how many numbers of parameters and buffers the rows hold."""
    rows = trials.stack.rows
    return sum(tensor.numel() for tensor in (rows.flat, *rows.buffers.values(), *rows.shared.values()))


def main() -> None:
    """Measure both sides in turns and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    once, apart = (side(given.width, given.size, holds_once) for holds_once in (True, False))
    pairs = [(once.seconds_per_step(3), apart.seconds_per_step(3)) for _ in range(given.turns)]
    ratios = sorted(theirs / ours for ours, theirs in pairs)
    print(
        f"{given.width} rows of {given.size} x {given.size}: a step is {statistics.median(ratios):.2f} times as fast "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}) with the frozen layers held once, and "
        f"{numbers(apart) / numbers(once):.1f} times fewer numbers are held ({numbers(once):,} of {numbers(apart):,})"
    )


if __name__ == "__main__":
    main()
