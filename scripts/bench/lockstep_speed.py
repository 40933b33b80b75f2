"""Whole trials of a module with augmentation: rows that read in lockstep, sequential trials and plain Lightning.

python scripts/bench/lockstep_speed.py [--quick]

The module is user_module.py's, unchanged; its data module shifts and disturbs each example as it is read, so that none
can be held in memory. All sides train the same trials in one process with one thread, with validation and untracked.
Sides alternate, and the ratios are taken per round. Plain Lightning does not measure the train loss with dropout off.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from given_trials import BARE, SpecFeed
from lightning import LightningModule, Trainer
from section import median_and_range
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from user_module import Digits, LitMLP

from dropsearch.core.global_state import seeded
from dropsearch.core.records import TrialSpec
from dropsearch.datasets.user_data import UserData
from dropsearch.training.protocols import Engine, TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.trainers import quiet_lightning
from dropsearch.training.vectorized.engine import VectorizedEngine

SITES = ("model", "model#2", "model#3")


class Augmented(Dataset):
    """Shifts and disturbs each image that is read."""

    def __init__(self, examples: Dataset) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.examples[index]
        x = torch.roll(x, (random.randrange(-1, 2), random.randrange(-1, 2)), (1, 2))
        return x + 0.1 * torch.randn_like(x) * float(np.random.rand()), y


class AugmentedDigits(Digits):
    """The digits, augmented in training."""

    def train_dataloader(self) -> DataLoader:
        """Return batches of 64."""
        return DataLoader(Augmented(self.train), batch_size=64, shuffle=True)


def specs(count: int) -> list[TrialSpec]:
    """Return trials with rates of their own."""
    return [
        TrialSpec("dropout", n, 100 + n, dict.fromkeys(SITES, 0.1 + 0.02 * n), lr=1e-3, weight_decay=0.0)
        for n in range(count)
    ]


def make_module(spec: TrialSpec) -> LightningModule:
    """Return the module of a trial."""
    with seeded(spec.seed):
        return LitMLP(spec.lr)


def by_engine(make: Callable[[], Engine], count: int) -> float:
    """Return the seconds in which an engine trains trials."""
    engine, feed, started = make(), SpecFeed(specs(count)), time.perf_counter()
    engine.run(feed)
    seconds = time.perf_counter() - started
    assert [result.state for result in feed.ended] == ["COMPLETE"] * count, feed.ended[0].reason
    assert not getattr(engine, "failure", ""), engine.description
    return seconds


def by_plain_lightning(source: UserData, epochs: int, count: int) -> float:
    """Return the seconds of as many fits, with nothing but the module, its data and a Trainer without extras."""
    started = time.perf_counter()
    with quiet_lightning():
        for spec in specs(count):
            trainer = Trainer(max_epochs=epochs, **BARE)
            trainer.fit(make_module(spec), source.module.train_dataloader(), source.module.val_dataloader())
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of two trials: to check that it works")
    quick = parser.parse_args().quick
    count, epochs, rounds = (2, 1, 1) if quick else (16, 2, 3)
    torch.set_num_threads(1)
    source = UserData(AugmentedDigits(), "digits")
    rows: Any = source.in_rows()
    own = TrainerSettings(epochs, "cpu")
    shared = dataclasses.replace(own, shared_batches=True)
    sides: dict[str, Callable[[], float]] = {
        "plain Lightning": lambda: by_plain_lightning(source, epochs, count),
        "sequential": lambda: by_engine(lambda: SequentialEngine(make_module, source, own), count),
        "lockstep": lambda: by_engine(lambda: VectorizedEngine(make_module, rows, own, count), count),
        "lockstep, engine.batch_seed=shared": lambda: by_engine(
            lambda: VectorizedEngine(make_module, rows, shared, count), count
        ),
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    print(f"{count} trials of {epochs} epochs, {rounds} rounds\n")
    print("| side | s a trial | times sequential | times plain Lightning |\n|---|---|---|---|")
    for name, seconds in found.items():
        against = [
            [base / own for base, own in zip(found[other], seconds, strict=True)]
            for other in ("sequential", "plain Lightning")
        ]
        cells = [f"{statistics.median(seconds) / count:.3f}", *map(median_and_range, against)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
